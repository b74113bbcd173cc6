// Sums over Gaussians, then what is done to them voxel by voxel: blend, compare, differentiate.

#define STAGE ((8 + CHUNK + 3) / 4 * 4)  // four numbers are read at a time

// A block a tile, a lane a voxel. Lanes test 32 list entries against the warp's rectangle, put the
// sections that pass into the warp's part of shared memory, and all lanes go through those.
extern "C" __global__ void __launch_bounds__(32 * WARPS) splat(const Task t) {
    __shared__ __align__(16) real stage[WARPS][32][STAGE];
    const int warp = (int)(threadIdx.x >> 5), lane = lane_of(), tile = (int)blockIdx.x;
    const int x0 = tile % t.tiles_x * TILE_X + warp % WARPS_X * 8;
    const int y0 = tile / t.tiles_x % t.tiles_y * TILE_Y + warp / WARPS_X % WARPS_Y * 4;
    const int k = tile / (t.tiles_x * t.tiles_y) * TILE_Z + warp / (WARPS_X * WARPS_Y);
    if (x0 >= t.width || y0 >= t.height || k >= t.positions) return;  // a whole warp leaves
    const int x1 = min(x0 + 8, t.width) - 1, y1 = min(y0 + 4, t.height) - 1;
    const int x = x0 + (lane & 7), y = y0 + (lane >> 3), z = t.slices[t.origin + k];
    const long long begin = min(t.offsets[tile], t.capacity);
    const long long end = min(t.offsets[tile + 1], t.capacity);
    const long long plane = (long long)t.positions * t.height * t.pitch;
    real *place = t.sums + ((long long)k * t.height + y) * t.pitch + x;
    for (int from = 0; from < PLANES; from += CHUNK) {
        real total[CHUNK];
#pragma unroll
        for (int c = 0; c < CHUNK; c++) total[c] = 0;
        for (long long base = begin; base < end; base += 32) {
            bool hit = false;
            Section c = {0, 0, 0, 0};
            int i = 0;
            if (base + lane < end) {
                i = t.members[base + lane];
                const real *p = t.prepared + (long long)i * PREPARED;
                c = section_at(p, z, t.budget);
                hit = touches(p, c, x0, x1, y0, y1);
            }
            const unsigned mask = __ballot_sync(ALL, hit);
            if (hit) {
                const real *p = t.prepared + (long long)i * PREPARED;
                const real *v = t.theta + (long long)i * COLUMNS + GEOMETRY + from;
                real *s = stage[warp][__popc(mask & ((1u << lane) - 1u))];
                s[0] = c.mx;
                s[1] = c.my;
                s[2] = p[P_S];
                s[3] = p[P_R1];
                s[4] = p[P_R2];
                s[5] = c.left;
                s[6] = p[P_LOG2W] - t.budget + c.left;
#pragma unroll
                for (int n = 0; n < CHUNK; n++)
                    s[8 + n] = from + n < CHANNELS ? v[n] : (from + n == CHANNELS ? (real)1 : (real)0);
            }
            __syncwarp();
            const int passed = __popc(mask);
            for (int j = 0; j < passed; j++) {
                const real *s = stage[warp][j];
                const real dy = (real)y - s[1];
                const real u = (real)x - (s[0] + s[2] * dy);
                const real q = s[3] * u * u + s[4] * dy * dy;
                const real g = q <= s[5] ? EXP2(s[6] - q) : (real)0;
#pragma unroll
                for (int n = 0; n < CHUNK; n++) total[n] += g * s[8 + n];
            }
            __syncwarp();
        }
        if (x <= x1 && y <= y1) {
#pragma unroll
            for (int n = 0; n < CHUNK; n++)
                if (from + n < PLANES) place[(from + n) * plane] = total[n];
        }
    }
}

// One voxel of a slab a thread.
struct Voxel {
    bool inside;
    int k, y, x;
    real *sums;
    long long plane;
};

__device__ inline Voxel voxel_of(const Task &t) {
    Voxel v;
    const long long n = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long area = (long long)t.height * t.width;
    v.inside = n < area * t.positions;
    if (area * t.positions < 0x7fffff00ll) {  // dividing long numbers takes long
        const unsigned m = (unsigned)n, line = m / (unsigned)t.width;
        v.k = (int)(line / (unsigned)t.height);
        v.y = (int)(line % (unsigned)t.height);
        v.x = (int)(m % (unsigned)t.width);
    } else {
        v.k = (int)(n / area);
        v.y = (int)(n % area / t.width);
        v.x = (int)(n % t.width);
    }
    v.plane = (long long)t.positions * t.height * t.pitch;
    v.sums = t.sums + ((long long)v.k * t.height + v.y) * t.pitch + v.x;
    return v;
}

__device__ inline real base_of(const Task &t, int c) {
    return t.normalized ? t.eps * t.background[c] : t.background[c];
}

__device__ inline real inverse_of(const Task &t, const Voxel &v) {
    return t.normalized ? (real)1 / (v.sums[CHANNELS * v.plane] + t.eps) : (real)1;
}

extern "C" __global__ void blend(const Task t) {
    const Voxel v = voxel_of(t);
    if (!v.inside) return;
    const real inverse = inverse_of(t, v);
    const long long area = (long long)t.height * t.width;
    real *out = t.out + (long long)(t.origin + v.k) * area + (long long)v.y * t.width + v.x;
    for (int c = 0; c < CHANNELS; c++)
        out[c * area * t.wanted] = (v.sums[c * v.plane] + base_of(t, c)) * inverse;
}

// Replace sums by the derivatives of a loss, given those with respect to the blended values.
extern "C" __global__ void blend_backward(const Task t) {
    const Voxel v = voxel_of(t);
    if (!v.inside) return;
    const real inverse = inverse_of(t, v);
    const long long area = (long long)t.height * t.width;
    const real *given =
        t.grad_out + (long long)(t.origin + v.k) * area + (long long)v.y * t.width + v.x;
    real pull = 0;
    for (int c = 0; c < CHANNELS; c++) {
        const real value = (v.sums[c * v.plane] + base_of(t, c)) * inverse;
        const real slope = given[c * area * t.wanted] * inverse;
        v.sums[c * v.plane] = slope;
        pull -= slope * value;
    }
    v.sums[CHANNELS * v.plane] = t.normalized ? pull : (real)0;
}

__device__ inline void compare_image(
    const Task &t, const Voxel &v, int z, real inverse, real *errors, real *pull
) {
    const long long area = (long long)t.height * t.width;
    const long long at = (long long)z * area + (long long)v.y * t.width + v.x;
    real sum = 0, most = 0;
    for (int c = 0; c < t.image_count; c++) {
        const real factor = t.image_weights[c * t.depth + z];
        const real value = (v.sums[c * v.plane] + base_of(t, c)) * inverse;
        const real difference = value - t.images[c * area * t.depth + at];
        const real force = t.l1 ? (difference > 0 ? (real)1 : (real)-1) : difference;
        const real slope = factor * force * inverse;
        sum += difference * difference;
        most = FMAX(most, factor);
        v.sums[c * v.plane] = slope;
        *pull -= slope * value;
    }
    // Slices with a weight that do not count are frames between the slices there are.
    errors[0] = t.counted[z] * sum;
    errors[2] = most > 0 ? sum - errors[0] : (real)0;
}

__device__ inline void compare_labels(
    const Task &t, const Voxel &v, int z, real inverse, real *miss, real *pull
) {
    const long long area = (long long)t.height * t.width;
    const int mark = t.labels[(long long)z * area + (long long)v.y * t.width + v.x];
    const bool known = mark != UNLABELLED;
    const real log2e = (real)1.4426950408889634;
    real peak = (real)-1e30, norm = 0;
    for (int c = 0; c < t.classes; c++) {
        const int n = t.image_count + c;
        peak = FMAX(peak, (v.sums[n * v.plane] + base_of(t, n)) * inverse);
    }
    for (int c = 0; c < t.classes; c++) {
        const int n = t.image_count + c;
        const real logit = (v.sums[n * v.plane] + base_of(t, n)) * inverse;
        norm += EXP2((logit - peak) * log2e);
    }
    for (int c = 0; c < t.classes; c++) {
        const int n = t.image_count + c;
        const real logit = (v.sums[n * v.plane] + base_of(t, n)) * inverse;
        const real share = EXP2((logit - peak) * log2e) / norm;
        const real hit = mark == c ? (real)1 : (real)0;
        const real slope = known ? t.seg_weights[z] * (share - hit) * inverse : (real)0;
        if (mark == c) *miss = (real)1 - share;
        v.sums[n * v.plane] = slope;
        *pull -= slope * logit;
    }
}

// Replace sums by the derivatives of the loss; add up the errors of a block.
extern "C" __global__ void __launch_bounds__(256) residual(const Task t) {
    __shared__ real parts[8][ERRORS];
    const Voxel v = voxel_of(t);
    real errors[ERRORS] = {0, 0, 0};
    if (v.inside) {
        const int z = t.slices[t.origin + v.k];
        const real inverse = inverse_of(t, v);
        real pull = 0;
        compare_image(t, v, z, inverse, errors, &pull);
        if (t.classes > 0) compare_labels(t, v, z, inverse, errors + 1, &pull);
        v.sums[CHANNELS * v.plane] = t.normalized ? pull : (real)0;
    }
#pragma unroll
    for (int n = 0; n < ERRORS; n++) {
        errors[n] = warp_sum(errors[n]);
        if (lane_of() == 0) parts[threadIdx.x >> 5][n] = errors[n];
    }
    __syncthreads();
    if (threadIdx.x >= ERRORS) return;
    double sum = 0;
    for (int k = 0; k < 8; k++) sum += (double)parts[k][threadIdx.x];
    t.partial[ERRORS * ((long long)t.partial_origin + blockIdx.x) + threadIdx.x] = sum;
}
