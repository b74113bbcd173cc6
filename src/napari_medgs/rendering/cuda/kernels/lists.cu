// Which Gaussians touch which tile: count, (scan,) fill, sort. A warp a Gaussian, a lane a row of
// tiles.

// Widen a range of columns by what an ellipse covers within rows, a hair's breadth included; `wide`
// is half its width for left = 1.
__device__ inline void widen(
    const real *p, const Section &c, real wide, int y0, int y1, real *least, real *most
) {
    if (c.left < 0) return;
    const real root = SQRT(c.left), reach = root * p[P_INV2];
    const real low = FMAX((real)y0 - MARGIN - c.my, -reach);
    const real high = FMIN((real)y1 + MARGIN - c.my, reach);
    if (low > high) return;
    // The ellipse ends on the right at the height `turn`, on the left at its opposite.
    const real turn = root * p[P_S] * p[P_INV2] * p[P_INV2] / wide;
    const real at_right = FMIN(FMAX(turn, low), high), at_left = FMIN(FMAX(-turn, low), high);
    const real r2 = p[P_R2], inverse = p[P_INV1];
    const real right = SQRT(FMAX(c.left - r2 * at_right * at_right, (real)0)) * inverse;
    const real left = SQRT(FMAX(c.left - r2 * at_left * at_left, (real)0)) * inverse;
    *least = FMIN(*least, c.mx + p[P_S] * at_left - left - MARGIN);
    *most = FMAX(*most, c.mx + p[P_S] * at_right + right + MARGIN);
}

__device__ inline void walk_tiles(const Task &t, bool fill) {
    const int i = (int)(((long long)blockIdx.x * blockDim.x + threadIdx.x) >> 5);
    if (i >= t.count) return;  // a whole warp leaves
    const int lane = lane_of();
    const real *p = t.prepared + (long long)i * PREPARED;
    int first, last;
    position_range(t, p, &first, &last);
    // Rows that its sections reach.
    const real high = p[P_INV2];
    real y0 = (real)1e6, y1 = (real)-1e6;
    for (int k = first + lane; k < last; k += 32) {
        const Section c = section_at(p, t.slices[t.origin + k], t.budget);
        if (c.left < 0) continue;
        const real root = SQRT(c.left);
        y0 = FMIN(y0, c.my - root * high);
        y1 = FMAX(y1, c.my + root * high);
    }
    for (int k = 16; k > 0; k >>= 1) {
        y0 = FMIN(y0, __shfl_xor_sync(ALL, y0, k));
        y1 = FMAX(y1, __shfl_xor_sync(ALL, y1, k));
    }
    const int top = clamped(CEIL(y0 - MARGIN), 0, t.height);
    const int bottom = clamped(FLOOR(y1 + MARGIN), -1, t.height - 1);
    int hits = 0;
    if (first < last && top <= bottom) {  // the same for all lanes
        const real wide = SQRT((real)1 / p[P_R1] + p[P_S] * p[P_S] / p[P_R2]);
        const int ty0 = top / TILE_Y, ny = bottom / TILE_Y - ty0 + 1;
        const int tz0 = first / TILE_Z, nz = (last - 1) / TILE_Z - tz0 + 1;
        for (int n = lane; n < ny * nz; n += 32) {
            const int ty = ty0 + n % ny, tz = tz0 + n / ny;
            const int row = ty * TILE_Y, k1 = min((tz + 1) * TILE_Z, t.positions);
            real least = (real)1e6, most = (real)-1e6;
            for (int k = tz * TILE_Z; k < k1; k++) {
                const Section c = section_at(p, t.slices[t.origin + k], t.budget);
                widen(p, c, wide, row, min(row + TILE_Y, t.height) - 1, &least, &most);
            }
            const int left = clamped(CEIL(least), 0, t.width);
            const int right = clamped(FLOOR(most), -1, t.width - 1);
            if (left > right) continue;
            const int tile = (tz * t.tiles_y + ty) * t.tiles_x;
            for (int tx = left / TILE_X; tx <= right / TILE_X; tx++) {
                hits++;
                if (!fill) {
                    atomicAdd(t.counts + tile + tx, 1);
                } else {
                    // Counting down leaves the counters at zero for the next time.
                    const long long at =
                        t.offsets[tile + tx] + atomicAdd(t.counts + tile + tx, -1) - 1;
                    if (at < t.capacity) t.members[at] = i;
                }
            }
        }
    }
    for (int k = 16; k > 0; k >>= 1) hits += __shfl_xor_sync(ALL, hits, k);
    if (lane != 0) return;
    t.touched[i] = hits;
    if (fill && hits > LARGE_TILES) t.large[1 + atomicAdd(t.large, 1)] = i;
}

extern "C" __global__ void count_tiles(const Task t) {
    if (blockIdx.x == 0 && threadIdx.x == 0) t.large[0] = 0;
    walk_tiles(t, false);
}

extern "C" __global__ void fill_tiles(const Task t) {
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        const long long needed = t.offsets[(long long)t.tiles_x * t.tiles_y * t.tiles_z];
        if (needed > t.capacity) t.flags[0] = 1;
        if (needed > t.flags[1]) t.flags[1] = needed;
    }
    walk_tiles(t, true);
}

#define SORT_SHARED 2048

__device__ inline void order(int *a, int n, int low, int high) {
    if (high >= n || a[low] <= a[high]) return;
    const int swap = a[low];
    a[low] = a[high];
    a[high] = swap;
}

// A bitonic network whose comparators all point upwards, so that any length will do.
__device__ inline void sort_block(int *a, int n) {
    int half = 1;
    while (2 * half < n) half *= 2;
    for (int size = 2; size / 2 < n; size *= 2) {
        for (int j = (int)threadIdx.x; j < half; j += (int)blockDim.x) {
            const int start = j / (size / 2) * size, k = j % (size / 2);
            order(a, n, start + k, start + size - 1 - k);
        }
        __syncthreads();
        for (int step = size / 4; step > 0; step /= 2) {
            for (int j = (int)threadIdx.x; j < half; j += (int)blockDim.x) {
                const int low = j / step * 2 * step + j % step;
                order(a, n, low, low + step);
            }
            __syncthreads();
        }
    }
}

// The filling order is a race; sorted lists make every sum come out the same each time.
extern "C" __global__ void __launch_bounds__(128) sort_tiles(const Task t) {
    __shared__ int some[SORT_SHARED];
    const long long begin = min(t.offsets[blockIdx.x], t.capacity);
    const int n = (int)(min(t.offsets[blockIdx.x + 1], t.capacity) - begin);
    if (n < 2) return;  // the whole block leaves
    int *list = t.members + begin;
    if (n > SORT_SHARED) {
        sort_block(list, n);
        return;
    }
    for (int j = (int)threadIdx.x; j < n; j += (int)blockDim.x) some[j] = list[j];
    __syncthreads();
    sort_block(some, n);
    for (int j = (int)threadIdx.x; j < n; j += (int)blockDim.x) list[j] = some[j];
}
