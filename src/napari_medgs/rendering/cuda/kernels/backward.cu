// Gradients: a warp a Gaussian reads the derivatives where the Gaussian is; nobody shares a sum.

// Moments of e = w g dL/d(w g): by powers of the distance d from the center along the slices,
// alone and times u or y, and by products of u and y.
enum { M_ALONE, M_U = M_ALONE + 3, M_Y = M_U + 4, M_UU = M_Y + 4, M_UY, M_YY, MOMENTS };

// Warps share the slices a Gaussian reaches, and the rows where there are fewer slices than warps.
// Eight lanes go along a row, aligned to the memory's sectors; four rows at a time and warp. What
// lies AHEAD along a row is read before it is needed, as reading takes far longer than reckoning.
__device__ inline void gather_planes(
    const Task &t, const real *p, int first, int last, int warp, int warps, int from,
    const real *value, real *of_plane, real *m
) {
    const int lane = lane_of();
    const real r1 = p[P_R1], s = p[P_S], r2 = p[P_R2], inverse = p[P_INV1];
    const real bottom = p[P_LOG2W] - t.budget;
    const long long plane = (long long)t.positions * t.height * t.pitch;
    int through = 1;
    while (2 * through <= min(warps, last - first)) through *= 2;
    const int part = warp / through, parts = warps / through;
    for (int k = first + warp % through; k < last; k += through) {
        const Section c = section_at(p, t.slices[t.origin + k], t.budget);
        if (c.left < 0) continue;
        const real reach = SQRT(c.left) * p[P_INV2] + MARGIN;
        const int y0 = clamped(CEIL(c.my - reach), 0, t.height);
        const int y1 = clamped(FLOOR(c.my + reach), -1, t.height - 1);
        real e_sum = 0, u_sum = 0, y_sum = 0;
        for (int y = y0 + 4 * part + (lane >> 3); y <= y1; y += 4 * parts) {
            const real dy = (real)y - c.my;
            const real center = c.mx + s * dy, q_row = r2 * dy * dy;
            const real half = SQRT(FMAX(c.left - q_row, (real)0)) * inverse + MARGIN;
            const int x0 = clamped(CEIL(center - half), 0, t.width);
            const int x1 = clamped(FLOOR(center + half), -1, t.width - 1);
            const real *row =
                t.sums + from * plane + ((long long)k * t.height + y) * t.pitch;
            for (int x = (x0 & ~7) + (lane & 7); x <= x1; x += 8 * AHEAD) {
                real u[AHEAD], g[AHEAD], mixed[AHEAD];
#pragma unroll
                for (int j = 0; j < AHEAD; j++) {
                    u[j] = (real)(x + 8 * j) - center;
                    const real q = r1 * u[j] * u[j] + q_row;
                    const bool inside = q <= c.left && x + 8 * j <= x1;
                    g[j] = inside ? EXP2(bottom + (c.left - q)) : (real)0;
                    mixed[j] = 0;
                }
                const real *at = row + x;
#pragma unroll
                for (int n = 0; n < CHUNK; n++) {
                    if (from + n >= PLANES) continue;
#pragma unroll
                    for (int j = 0; j < AHEAD; j++) {
                        const real h = x + 8 * j <= x1 ? at[8 * j] : (real)0;
                        of_plane[n] += g[j] * h;
                        mixed[j] += value[n] * h;
                    }
                    at += plane;
                }
#pragma unroll
                for (int j = 0; j < AHEAD; j++) {
                    const real e = g[j] * mixed[j];
                    e_sum += e;
                    u_sum += e * u[j];
                    y_sum += e * dy;
                    m[M_UU] += e * u[j] * u[j];
                    m[M_UY] += e * u[j] * dy;
                    m[M_YY] += e * dy * dy;
                }
            }
        }
        real power = 1;
#pragma unroll
        for (int n = 0; n < 4; n++) {
            if (n < 3) m[M_ALONE + n] += e_sum * power;
            m[M_U + n] += u_sum * power;
            m[M_Y + n] += y_sum * power;
            power *= c.d;
        }
    }
}

__device__ inline void load_values(const Task &t, int i, int from, real *value, real *of_plane) {
    const real *v = t.theta + (long long)i * COLUMNS + GEOMETRY + from;
#pragma unroll
    for (int n = 0; n < CHUNK; n++) {
        value[n] = from + n < CHANNELS ? v[n] : (real)1;
        of_plane[n] = 0;
    }
}

__device__ inline void put(const Task &t, real *place, real v) { *place = t.add ? *place + v : v; }

__device__ inline void write_geometry(const Task &t, int i, const real *p, const real *m) {
    real *g = t.gradient + (long long)i * COLUMNS;
    const real scale = (real)1.3862943611198906;  // 2 ln 2: q is in units of log2
    const real r1 = p[P_R1], s = p[P_S], r2 = p[P_R2], sheared = r1 * m[M_UY];
    real gx[4], gy[4];  // slopes in the center of a section, by powers of d
#pragma unroll
    for (int n = 0; n < 4; n++) {
        gx[n] = r1 * m[M_U + n];
        gy[n] = r2 * m[M_Y + n] - s * gx[n];
    }
    real along = p[P_RT] * m[M_ALONE + 1];
#pragma unroll
    for (int n = 0; n < 3; n++)
        along -= (real)(n + 1) * (p[P_A1 + n] * gx[n] + p[P_B1 + n] * gy[n]);
    put(t, g + X, scale * gx[0]);
    put(t, g + Y, scale * gy[0]);
    put(t, g + T, scale * along);
    // The optimized shear is s r1 / r2, so log r1 and log r2 move s as well.
    put(t, g + LOG_R1, scale * (-r1 * m[M_UU] - s * sheared));
    put(t, g + SHEAR, scale * sheared * SQRT(r2) * p[P_INV1]);
    put(t, g + LOG_R2, scale * (-r2 * m[M_YY] + s * sheared));
    put(t, g + LOG_RT, -scale * p[P_RT] * m[M_ALONE + 2]);
    put(t, g + LOG_W, m[M_ALONE]);
#pragma unroll
    for (int n = 0; n < 3; n++) {
        put(t, g + A1 + n, t.degree > n ? scale * gx[n + 1] : (real)0);
        put(t, g + B1 + n, t.degree > n ? scale * gy[n + 1] : (real)0);
    }
}

#define BLOCKS_OF(warps) (RESIDENT_WARPS / (warps) > 0 ? RESIDENT_WARPS / (warps) : 1)

extern "C" __global__ void __launch_bounds__(32 * GATHER_WARPS, BLOCKS_OF(GATHER_WARPS))
gather(const Task t) {
    const int i = (int)(((long long)blockIdx.x * blockDim.x + threadIdx.x) >> 5);
    if (i >= t.count) return;  // a whole warp leaves
    const int hits = t.touched[i];
    if (hits > LARGE_TILES || (hits == 0 && t.add)) return;
    const real *p = t.prepared + (long long)i * PREPARED;
    int first, last;
    position_range(t, p, &first, &last);
    if (hits == 0) last = first;
    real m[MOMENTS];
#pragma unroll
    for (int k = 0; k < MOMENTS; k++) m[k] = 0;
    for (int from = 0; from < PLANES; from += CHUNK) {
        real value[CHUNK], of_plane[CHUNK];
        load_values(t, i, from, value, of_plane);
        gather_planes(t, p, first, last, 0, 1, from, value, of_plane, m);
#pragma unroll
        for (int n = 0; n < CHUNK; n++) {
            const real sum = warp_sum(of_plane[n]);
            if (lane_of() == 0 && from + n < CHANNELS)
                put(t, t.gradient + (long long)i * COLUMNS + GEOMETRY + from + n, sum);
        }
    }
#pragma unroll
    for (int k = 0; k < MOMENTS; k++) m[k] = warp_sum(m[k]);
    if (lane_of() == 0) write_geometry(t, i, p, m);
}

// A block a Gaussian, for those that would keep one warp busy long after all others are done.
extern "C" __global__ void __launch_bounds__(32 * LARGE_WARPS, BLOCKS_OF(LARGE_WARPS))
gather_large(const Task t) {
    __shared__ real parts[LARGE_WARPS][CHUNK + MOMENTS];
    const int warp = (int)(threadIdx.x >> 5), lane = lane_of();
    const int thread = (int)threadIdx.x, many = t.large[0];
    for (int index = (int)blockIdx.x; index < many; index += (int)gridDim.x) {
        const int i = t.large[1 + index];
        const real *p = t.prepared + (long long)i * PREPARED;
        real *g = t.gradient + (long long)i * COLUMNS + GEOMETRY;
        int first, last;
        position_range(t, p, &first, &last);
        real m[MOMENTS];
#pragma unroll
        for (int k = 0; k < MOMENTS; k++) m[k] = 0;
        for (int from = 0; from < PLANES; from += CHUNK) {
            real value[CHUNK], of_plane[CHUNK];
            load_values(t, i, from, value, of_plane);
            gather_planes(t, p, first, last, warp, LARGE_WARPS, from, value, of_plane, m);
#pragma unroll
            for (int n = 0; n < CHUNK; n++) {
                const real sum = warp_sum(of_plane[n]);
                if (lane == 0) parts[warp][n] = sum;
            }
            __syncthreads();  // all warps of a block handle the same Gaussian
            if (thread < CHUNK && from + thread < CHANNELS) {
                real sum = 0;
                for (int k = 0; k < LARGE_WARPS; k++) sum += parts[k][thread];
                put(t, g + from + thread, sum);
            }
            __syncthreads();
        }
#pragma unroll
        for (int k = 0; k < MOMENTS; k++) {
            const real sum = warp_sum(m[k]);
            if (lane == 0) parts[warp][CHUNK + k] = sum;
        }
        __syncthreads();
        if (thread == 0) {
#pragma unroll
            for (int k = 0; k < MOMENTS; k++) {
                m[k] = 0;
                for (int n = 0; n < LARGE_WARPS; n++) m[k] += parts[n][CHUNK + k];
            }
            write_geometry(t, i, p, m);
        }
        __syncthreads();
    }
}

// One number of the table a thread. Nothing moves after a list overflowed, or at the goal.
extern "C" __global__ void adam(const Task t) {
    const long long n = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= (long long)t.count * COLUMNS) return;
    bool good = true;
    for (int k = 0; k < ERRORS; k++) good = good && t.totals[k] <= t.stop[k];
    if (good || t.flags[0] != 0) return;
    const int column = (int)(n % COLUMNS);
    const real slope = t.gradient[n];
    const real m = t.keep1 * t.first[n] + ((real)1 - t.keep1) * slope;
    const real v = t.keep2 * t.second[n] + ((real)1 - t.keep2) * slope * slope;
    t.first[n] = m;
    t.second[n] = v;
    const real moved = t.theta[n] - t.scale * t.steps[column] * m / (SQRT(v) + t.quiet[column]);
    t.theta[n] = FMIN(FMAX(moved, t.lower[column]), t.upper[column]);
}
