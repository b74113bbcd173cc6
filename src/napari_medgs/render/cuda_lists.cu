// Which Gaussians touch which tile: count, (scan,) fill, sort. A warp a Gaussian, a lane a tile.

__device__ inline bool tile_touched(const Task &t, const real *p, int tx, int ty, int tz) {
    const int x0 = tx * TILE_X, y0 = ty * TILE_Y, k0 = tz * TILE_Z;
    const int x1 = min(x0 + TILE_X, t.width) - 1, y1 = min(y0 + TILE_Y, t.height) - 1;
    const int k1 = min(k0 + TILE_Z, t.positions);
    for (int k = k0; k < k1; k++) {
        const Section c = section_at(p, t.slices[t.origin + k], t.budget);
        if (touches(p, c, x0, x1, y0, y1)) return true;
    }
    return false;
}

__device__ inline void walk_tiles(const Task &t, bool fill) {
    const int i = (int)(((long long)blockIdx.x * blockDim.x + threadIdx.x) >> 5);
    if (i >= t.count) return;  // a whole warp leaves
    const int lane = lane_of();
    const real *p = t.prepared + (long long)i * PREPARED;
    int first, last;
    position_range(t, p, &first, &last);
    // Bounding box over all its sections.
    const real wide = SQRT((real)1 / p[P_R1] + p[P_S] * p[P_S] / p[P_R2]), high = p[P_INV2];
    real x0 = (real)1e6, x1 = (real)-1e6, y0 = (real)1e6, y1 = (real)-1e6;
    for (int k = first + lane; k < last; k += 32) {
        const Section c = section_at(p, t.slices[t.origin + k], t.budget);
        if (c.left < 0) continue;
        const real root = SQRT(c.left);
        x0 = FMIN(x0, c.mx - root * wide);
        x1 = FMAX(x1, c.mx + root * wide);
        y0 = FMIN(y0, c.my - root * high);
        y1 = FMAX(y1, c.my + root * high);
    }
    for (int k = 16; k > 0; k >>= 1) {
        x0 = FMIN(x0, __shfl_xor_sync(ALL, x0, k));
        x1 = FMAX(x1, __shfl_xor_sync(ALL, x1, k));
        y0 = FMIN(y0, __shfl_xor_sync(ALL, y0, k));
        y1 = FMAX(y1, __shfl_xor_sync(ALL, y1, k));
    }
    const int left = clamped(CEIL(x0 - MARGIN), 0, t.width);
    const int right = clamped(FLOOR(x1 + MARGIN), -1, t.width - 1);
    const int top = clamped(CEIL(y0 - MARGIN), 0, t.height);
    const int bottom = clamped(FLOOR(y1 + MARGIN), -1, t.height - 1);
    int hits = 0;
    if (first < last && left <= right && top <= bottom) {  // the same for all lanes
        const int tx0 = left / TILE_X, nx = right / TILE_X - tx0 + 1;
        const int ty0 = top / TILE_Y, ny = bottom / TILE_Y - ty0 + 1;
        const int tz0 = first / TILE_Z, nz = (last - 1) / TILE_Z - tz0 + 1;
        const int total = nx * ny * nz;
        for (int base = 0; base < total; base += 32) {
            const int n = base + lane;
            const int tx = tx0 + n % nx, ty = ty0 + n / nx % ny, tz = tz0 + n / (nx * ny);
            const bool hit = n < total && tile_touched(t, p, tx, ty, tz);
            hits += __popc(__ballot_sync(ALL, hit));
            if (!hit) continue;
            const int tile = (tz * t.tiles_y + ty) * t.tiles_x + tx;
            if (!fill) {
                atomicAdd(t.counts + tile, 1);
            } else {
                // Counting down leaves the counters at zero for the next time.
                const long long at = t.offsets[tile] + atomicAdd(t.counts + tile, -1) - 1;
                if (at < t.capacity) t.members[at] = i;
            }
        }
    }
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
