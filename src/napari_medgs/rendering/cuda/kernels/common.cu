// Shared by all kernels: one argument block, the prepared Gaussian, ellipse against rectangle.
//
// The host defines CHANNELS (values of a Gaussian), CHUNK (planes held in registers at a time),
// what is tuned (see cuda_driver.py) and the tile: TILE_X x TILE_Y pixels of TILE_Z slices make eight warps, each 8 x 4 pixels of a slice.
// Warps never wait for each other unless a comment says so; lanes of a warp always run together.

#ifdef MEDGS_DOUBLE
typedef double real;
#define EXP2 exp2
#define SQRT sqrt
#define FLOOR floor
#define CEIL ceil
#define FMIN fmin
#define FMAX fmax
#else
typedef float real;
#define EXP2 exp2f
#define SQRT sqrtf
#define FLOOR floorf
#define CEIL ceilf
#define FMIN fminf
#define FMAX fmaxf
#endif

#define PLANES (CHANNELS + 1)
#define GEOMETRY 14
#define COLUMNS (GEOMETRY + CHANNELS)
#define WARPS 8
#define WARPS_X (TILE_X / 8)
#define WARPS_Y (TILE_Y / 4)
#define ALL 0xffffffffu
#define UNLABELLED 255
#define ERRORS 3
#define MARGIN ((real)1e-3)

// Columns of theta.
enum { X, Y, T, LOG_R1, SHEAR, LOG_R2, LOG_RT, LOG_W, A1, A2, A3, B1, B2, B3 };
// Columns of the prepared table: precisions are squared and in units of log2.
enum { P_X, P_Y, P_T, P_R1, P_S, P_R2, P_RT, P_LOG2W, P_A1, P_A2, P_A3, P_B1, P_B2, P_B3, P_INV1,
       P_INV2, PREPARED };

struct Task {
    // Gaussians
    real *theta;          // (count, COLUMNS)
    real *prepared;       // (count, 16)
    real *gradient;       // (count, COLUMNS)
    int *touched;         // (count): tiles of this slab
    // Slices wanted and the lists of every tile
    const int *slices;    // (wanted): increasing slice numbers
    const int *lookup;    // (depth + 1): how many wanted slices lie before this one
    int *counts;          // (tiles): zero between calls
    const long long *offsets;  // (tiles + 1)
    int *members;         // (capacity)
    int *large;           // (1 + count): how many large Gaussians, then which
    long long *flags;     // (2): capacity was too small, capacity needed
    // Planes of one slab, (PLANES, positions, height, pitch): sums in, derivatives out
    real *sums;
    real *out;            // (CHANNELS, wanted, height, width)
    const real *grad_out;
    const real *background;        // (CHANNELS)
    const real *images;            // (image_count, depth, height, width)
    const real *image_weights;     // (image_count, depth)
    const unsigned char *labels;   // (depth, height, width)
    const real *seg_weights;       // (depth)
    const real *counted;           // (depth): 1 where squared errors are summed, else 0
    double *partial;               // (blocks, ERRORS)
    // Optimizer
    real *first;
    real *second;
    const real *steps;     // (COLUMNS), and so on
    const real *quiet;     // added to the root of the second moment
    const real *lower;
    const real *upper;
    const double *totals;  // (ERRORS): squared error, missed class mass, error of frames between
    long long capacity;
    double stop[ERRORS];   // the step is not taken once all totals are this small
    int count;
    int degree;
    int depth;
    int height;
    int width;
    int pitch;
    int wanted;
    int origin;            // first wanted slice of this slab
    int positions;         // wanted slices of this slab
    int tiles_x;
    int tiles_y;
    int tiles_z;
    int image_count;
    int classes;
    int normalized;
    int l1;
    int add;               // add to the gradient instead of replacing it
    int partial_origin;
    real budget;           // cutoff in units of log2
    real eps;
    real scale;            // of the optimiser's steps
    real keep1;
    real keep2;
};

__device__ inline int lane_of() { return (int)(threadIdx.x & 31u); }

__device__ inline real warp_sum(real v) {
    for (int k = 16; k > 0; k >>= 1) v += __shfl_xor_sync(ALL, v, k);
    return v;
}

__device__ inline int clamped(real v, int low, int high) {
    return (int)FMIN(FMAX(v, (real)low), (real)high);
}

// An ellipse: the section of a Gaussian by one slice.
struct Section {
    real mx, my, left, d;
};

__device__ inline Section section_at(const real *p, int z, real budget) {
    Section c;
    const real d = (real)z - p[P_T];
    c.d = d;
    c.left = budget - p[P_RT] * d * d;
    c.mx = p[P_X] + d * (p[P_A1] + d * (p[P_A2] + d * p[P_A3]));
    c.my = p[P_Y] + d * (p[P_B1] + d * (p[P_B2] + d * p[P_B3]));
    return c;
}

// Whether r1 (dx - s dy)^2 + r2 dy^2 <= left somewhere in a rectangle, a hair's breadth included.
__device__ inline bool touches(const real *p, const Section &c, int x0, int x1, int y0, int y1) {
    if (c.left < 0) return false;
    const real r1 = p[P_R1], s = p[P_S], r2 = p[P_R2];
    const real ax = (real)x0 - MARGIN - c.mx, bx = (real)x1 + MARGIN - c.mx;
    const real ay = (real)y0 - MARGIN - c.my, by = (real)y1 + MARGIN - c.my;
    const bool in_x = ax <= 0 && bx >= 0, in_y = ay <= 0 && by >= 0;
    if (in_x && in_y) return true;
    real best = (real)1e30;
    if (!in_y) {  // the edge that faces the center
        const real dy = ay > 0 ? ay : by;
        const real dx = FMIN(FMAX(s * dy, ax), bx);
        const real u = dx - s * dy;
        best = r1 * u * u + r2 * dy * dy;
    }
    if (!in_x) {
        const real dx = ax > 0 ? ax : bx;
        const real dy = FMIN(FMAX(r1 * s * dx / (r1 * s * s + r2), ay), by);
        const real u = dx - s * dy;
        best = FMIN(best, r1 * u * u + r2 * dy * dy);
    }
    return best <= c.left;
}

// Wanted slices of this slab that a Gaussian reaches, first and one past the last.
__device__ inline void position_range(const Task &t, const real *p, int *first, int *last) {
    const real half = SQRT(t.budget / p[P_RT]) + MARGIN;
    const int z0 = clamped(CEIL(p[P_T] - half), 0, t.depth);
    const int z1 = clamped(FLOOR(p[P_T] + half), -1, t.depth - 1) + 1;
    const int a = t.lookup[z0] - t.origin, b = t.lookup[z1] - t.origin;
    *first = a < 0 ? 0 : a;
    *last = b > t.positions ? t.positions : b;
}

extern "C" __global__ void prepare(const Task t) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i == 0) {
        t.flags[0] = 0;
        t.flags[1] = 0;
    }
    if (i >= t.count) return;
    const real log2e = (real)1.4426950408889634, half_log2e = (real)0.7213475204444817;
    const real *g = t.theta + (long long)i * COLUMNS;
    real *p = t.prepared + (long long)i * PREPARED;
    const real r1 = EXP2(g[LOG_R1] * log2e), r2 = EXP2(g[LOG_R2] * log2e);
    const real rt = EXP2(g[LOG_RT] * log2e);
    p[P_X] = g[X];
    p[P_Y] = g[Y];
    p[P_T] = g[T];
    p[P_R1] = r1 * r1 * half_log2e;
    p[P_S] = g[SHEAR] * r2 / r1;
    p[P_R2] = r2 * r2 * half_log2e;
    p[P_RT] = rt * rt * half_log2e;
    p[P_LOG2W] = g[LOG_W] * log2e;
    for (int k = 0; k < 3; k++) {
        p[P_A1 + k] = t.degree > k ? g[A1 + k] : (real)0;
        p[P_B1 + k] = t.degree > k ? g[B1 + k] : (real)0;
    }
    p[P_INV1] = (real)1 / SQRT(p[P_R1]);
    p[P_INV2] = (real)1 / SQRT(p[P_R2]);
}
