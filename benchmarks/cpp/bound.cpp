// A bound for the CPU engine: the same step (prepare, list, splat, residual, gather) of the
// normalized blend with one channel, written by hand with vector intrinsics and C++ threads.
//
// The tables are those of napari_medgs.render: theta (N, 15), gradient (N, 15), buffers
// (slice, row, 2, width + 16). LANES is 16 (AVX-512) or 8 (AVX2). Compile with -O3 -march=native
// -fopenmp-simd -fno-math-errno -fno-trapping-math, not -ffast-math: that undoes the rounding trick.

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#ifndef LANES
#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#endif

namespace {

constexpr int kColumns = 15;
constexpr int kPad = 16;
#ifndef FEW
#define FEW 16
#endif
constexpr int kFew = FEW;  // columns up to which finding chords does not pay
constexpr float kHalfLog2e = 0.72134752044448170f;
constexpr float kScale = 1.3862943611198906f;

#if LANES == 16
using V = __m512;
inline V set1(float a) { return _mm512_set1_ps(a); }
inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, V a) { _mm512_storeu_ps(p, a); }
inline V add(V a, V b) { return _mm512_add_ps(a, b); }
inline V mul(V a, V b) { return _mm512_mul_ps(a, b); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline float sum(V a) { return _mm512_reduce_add_ps(a); }
inline V lanes() {
  return _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}
// 2^e where e >= bottom, else 0: scalef and rounding are single instructions here.
inline V exp2_masked(V e, V bottom) {
  const __mmask16 inside = _mm512_cmp_ps_mask(e, bottom, _CMP_GE_OQ);
  const V whole = _mm512_roundscale_ps(e, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const V f = _mm512_sub_ps(e, whole);
  V r = fma(set1(0.00133986268f), f, set1(0.00961834099f));
  r = fma(r, f, set1(0.0555032548f));
  r = fma(r, f, set1(0.240226462f));
  r = fma(r, f, set1(0.693147182f));
  r = fma(r, f, set1(1.0f));
  return _mm512_maskz_scalef_ps(inside, r, whole);
}
#else
using V = __m256;
inline V set1(float a) { return _mm256_set1_ps(a); }
inline V load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, V a) { _mm256_storeu_ps(p, a); }
inline V add(V a, V b) { return _mm256_add_ps(a, b); }
inline V mul(V a, V b) { return _mm256_mul_ps(a, b); }
inline V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
inline float sum(V a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline V lanes() { return _mm256_set_ps(7, 6, 5, 4, 3, 2, 1, 0); }
inline V exp2_masked(V e, V bottom) {
  const V inside = _mm256_cmp_ps(e, bottom, _CMP_GE_OQ);
  const V magic = set1(12582912.0f);
  const V shifted = add(e, magic);
  const V f = _mm256_sub_ps(e, _mm256_sub_ps(shifted, magic));
  V r = fma(set1(0.00133986268f), f, set1(0.00961834099f));
  r = fma(r, f, set1(0.0555032548f));
  r = fma(r, f, set1(0.240226462f));
  r = fma(r, f, set1(0.693147182f));
  r = fma(r, f, set1(1.0f));
  const __m256i power = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
  r = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(r), power));
  return _mm256_and_ps(inside, r);
}
#endif

struct Prepared {
  float x, y, t, r1, s, r2, rt, log2w, a[3], b[3], wide, inv2;
};

struct Task {
  int64_t count;
  int depth, height, width, degree, threads;
  float budget, eps, background;
  const float* theta;
  const float* image;
  const float* weights;  // loss weight of every slice; 0 leaves it out
  float* gradient;
};

std::vector<Prepared> prepared;
std::vector<int64_t> offsets, cursor;
std::vector<int32_t> members;
std::vector<float> buffer;

template <class F>
void parallel(int64_t chunks, int threads, F task) {
  std::atomic<int64_t> next{0};
  auto drain = [&] {
    for (int64_t k; (k = next.fetch_add(1)) < chunks;) task(k);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(drain);
  drain();
  for (auto& thread : others) thread.join();
}

inline int first_index(float edge, int least) {
  return static_cast<int>(std::max(std::ceil(edge), static_cast<float>(least)));
}
inline int last_index(float edge, int most) {
  return static_cast<int>(std::min(std::floor(edge), static_cast<float>(most)));
}

void prepare(const Task& job) {
  prepared.resize(job.count);
  parallel((job.count + 4095) / 4096, job.threads, [&](int64_t k) {
    const int64_t last = std::min(job.count, (k + 1) * 4096);
    for (int64_t i = k * 4096; i < last; ++i) {
      const float* t = job.theta + i * kColumns;
      Prepared& p = prepared[i];
      const float r1 = std::exp(t[3]), r2 = std::exp(t[5]), rt = std::exp(t[6]);
      p = {t[0], t[1], t[2], r1 * r1 * kHalfLog2e, t[4] * r2 / r1, r2 * r2 * kHalfLog2e,
           rt * rt * kHalfLog2e, t[7] * 1.4426950408889634f, {}, {}, 0, 0};
      for (int d = 0; d < job.degree; ++d) p.a[d] = t[8 + d], p.b[d] = t[11 + d];
      p.wide = std::sqrt(1 / p.r1 + p.s * p.s / p.r2);
      p.inv2 = 1 / std::sqrt(p.r2);
    }
  });
}

inline void slice_range(const Task& job, const Prepared& p, int& z0, int& z1) {
  const float half = std::sqrt(job.budget / p.rt);
  z0 = first_index(p.t - half, 0);
  z1 = last_index(p.t + half, job.depth - 1) + 1;
}

void list_slices(const Task& job) {
  offsets.assign(job.depth + 1, 0);
  int z0, z1;
  for (const Prepared& p : prepared) {
    slice_range(job, p, z0, z1);
    for (int z = z0; z < z1; ++z) offsets[z + 1] += job.weights[z] > 0;
  }
  for (int z = 0; z < job.depth; ++z) offsets[z + 1] += offsets[z];
  cursor.assign(offsets.begin(), offsets.end() - 1);
  members.resize(offsets[job.depth]);
  for (int64_t i = 0; i < job.count; ++i) {
    slice_range(job, prepared[i], z0, z1);
    for (int z = z0; z < z1; ++z)
      if (job.weights[z] > 0) members[cursor[z]++] = static_cast<int32_t>(i);
  }
}

// Calls block(row, x, u of the first lane, dy, top) for every vector that a Gaussian touches.
template <class B>
inline void for_blocks(const Task& job, const Prepared& p, float mx, float my, float left,
                       float bottom, B block) {
  const float reach = std::sqrt(left) * p.inv2, aside = std::sqrt(left) * p.wide;
  const int y0 = first_index(my - reach, 0), y1 = last_index(my + reach, job.height - 1);
  const int x0 = first_index(mx - aside, 0), x1 = last_index(mx + aside, job.width - 1);
  if (x0 > x1) return;
  if (x1 - x0 < kFew) {
    for (int x = x0; x <= x1; x += LANES) {
      const float begin = static_cast<float>(x) - mx;
      for (int y = y0; y <= y1; ++y) {
        const float dy = static_cast<float>(y) - my;
        block(y, x, begin - p.s * dy, dy, bottom + left - p.r2 * dy * dy);
      }
    }
    return;
  }
  for (int y = y0; y <= y1; ++y) {
    const float dy = static_cast<float>(y) - my;
    const float room = left - p.r2 * dy * dy;
    if (room < 0) continue;
    const float center = mx + p.s * dy, half = std::sqrt(room / p.r1);
    const int first = first_index(center - half, 0);
    const int last = last_index(center + half, job.width - 1);
    for (int x = first; x <= last; x += LANES)
      block(y, x, static_cast<float>(x) - center, dy, bottom + room);
  }
}

void splat(const Task& job, int z) {
  const int64_t stride = job.width + kPad;
  float* slice = buffer.data() + static_cast<int64_t>(z) * job.height * 2 * stride;
  std::memset(slice, 0, sizeof(float) * job.height * 2 * stride);
  const V lane = lanes();
  for (int64_t k = offsets[z]; k < offsets[z + 1]; ++k) {
    const int32_t i = members[k];
    const Prepared& p = prepared[i];
    const float d = static_cast<float>(z) - p.t, left = job.budget - p.rt * d * d;
    if (left <= 0) continue;
    const float mx = p.x + d * (p.a[0] + d * (p.a[1] + d * p.a[2]));
    const float my = p.y + d * (p.b[0] + d * (p.b[1] + d * p.b[2]));
    const float bottom = p.log2w - job.budget;
    const V value = set1(job.theta[static_cast<int64_t>(i) * kColumns + 14]);
    const V curve = set1(-p.r1), low = set1(bottom);
    for_blocks(job, p, mx, my, left, bottom, [&](int y, int x, float u0, float, float top) {
      const V u = add(set1(u0), lane);
      const V g = exp2_masked(fma(mul(u, curve), u, set1(top)), low);
      float* row = slice + y * 2 * stride + x;
      store(row, fma(g, value, load(row)));
      store(row + stride, add(g, load(row + stride)));
    });
  }
}

double residual(const Task& job, int z) {
  const int64_t stride = job.width + kPad;
  const float base = job.eps * job.background, factor = job.weights[z];
  double squares = 0;
  for (int y = 0; y < job.height; ++y) {
    float* __restrict row =
        buffer.data() + (static_cast<int64_t>(z) * job.height + y) * 2 * stride;
    float* __restrict weight = row + stride;
    const float* __restrict goal =
        job.image + (static_cast<int64_t>(z) * job.height + y) * job.width;
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int x = 0; x < job.width; ++x) {
      const float inverse = 1 / (weight[x] + job.eps);
      const float value = (row[x] + base) * inverse, difference = value - goal[x];
      const float slope = factor * difference * inverse;
      total += difference * difference;
      row[x] = slope;
      weight[x] = -slope * value;
    }
    std::memset(row + job.width, 0, sizeof(float) * kPad);
    std::memset(weight + job.width, 0, sizeof(float) * kPad);
    squares += total;
  }
  return squares;
}

void gather(const Task& job, int64_t i) {
  const int64_t stride = job.width + kPad;
  const Prepared& p = prepared[i];
  const V lane = lanes(), curve = set1(-p.r1);
  const float color = job.theta[i * kColumns + 14], bottom = p.log2w - job.budget;
  const V value = set1(color), low = set1(bottom), zero = set1(0);
  V slope_color = zero, euu = zero, euy = zero, eyy = zero;
  float weight = 0, slope_t = 0, slope_rt = 0, gxs[4] = {}, gys[4] = {};
  int z0, z1;
  slice_range(job, p, z0, z1);
  for (int z = z0; z < z1; ++z) {
    if (!(job.weights[z] > 0)) continue;
    const float d = static_cast<float>(z) - p.t, left = job.budget - p.rt * d * d;
    if (left <= 0) continue;
    const float mx = p.x + d * (p.a[0] + d * (p.a[1] + d * p.a[2]));
    const float my = p.y + d * (p.b[0] + d * (p.b[1] + d * p.b[2]));
    const float* slice = buffer.data() + static_cast<int64_t>(z) * job.height * 2 * stride;
    V se = zero, seu = zero, sey = zero;
    for_blocks(job, p, mx, my, left, bottom, [&](int y, int x, float u0, float dy, float top) {
      const V u = add(set1(u0), lane), height = set1(dy);
      const V g = exp2_masked(fma(mul(u, curve), u, set1(top)), low);
      const float* row = slice + y * 2 * stride + x;
      const V slope = load(row);
      const V e = mul(g, fma(value, slope, load(row + stride)));
      const V eu = mul(e, u), ey = mul(e, height);
      slope_color = fma(g, slope, slope_color);
      se = add(se, e);
      seu = add(seu, eu);
      sey = add(sey, ey);
      euu = fma(eu, u, euu);
      euy = fma(eu, height, euy);
      eyy = fma(ey, height, eyy);
    });
    const float e = sum(se);
    float gx = p.r1 * sum(seu), gy = p.r2 * sum(sey) - p.s * gx;
    weight += e;
    slope_rt += d * d * e;
    slope_t += p.rt * d * e - gx * (p.a[0] + d * (2 * p.a[1] + d * 3 * p.a[2])) -
               gy * (p.b[0] + d * (2 * p.b[1] + d * 3 * p.b[2]));
    for (int power = 0; power < 4; ++power, gx *= d, gy *= d) gxs[power] += gx, gys[power] += gy;
  }
  float* row = job.gradient + i * kColumns;
  const float shear = p.r1 * sum(euy);
  row[0] = kScale * gxs[0], row[1] = kScale * gys[0], row[2] = kScale * slope_t;
  row[3] = kScale * (-p.r1 * sum(euu) - p.s * shear);
  row[4] = kScale * shear * std::sqrt(p.r2 / p.r1);
  row[5] = kScale * (-p.r2 * sum(eyy) + p.s * shear);
  row[6] = -kScale * p.rt * slope_rt;
  row[7] = weight;
  for (int power = 0; power < 3; ++power) {
    row[8 + power] = job.degree > power ? kScale * gxs[power + 1] : 0;
    row[11 + power] = job.degree > power ? kScale * gys[power + 1] : 0;
  }
  row[14] = sum(slope_color);
}

}  // namespace

extern "C" int lane_count() { return LANES; }

// One step; seconds gets prepare + list, splat + residual, gather. Returns the squared error.
extern "C" double step(const float* theta, int64_t count, int depth, int height, int width,
                       int degree, float cutoff, float eps, float background, const float* image,
                       const float* weights, float* gradient, int threads, double* seconds) {
  const Task job{count, depth, height, width, degree, threads, cutoff * kHalfLog2e, eps,
                 background, theta, image, weights, gradient};
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  prepare(job);
  list_slices(job);
  buffer.resize(static_cast<size_t>(depth) * height * 2 * (width + kPad));
  const auto listed = Clock::now();
  std::vector<double> squares(depth, 0.0);
  parallel(depth, threads, [&](int64_t z) {
    if (!(weights[z] > 0)) return;
    splat(job, static_cast<int>(z));
    squares[z] = residual(job, static_cast<int>(z));
  });
  const auto splatted = Clock::now();
  parallel((count + 511) / 512, threads, [&](int64_t k) {
    for (int64_t i = k * 512; i < std::min(count, (k + 1) * 512); ++i) gather(job, i);
  });
  const auto gathered = Clock::now();
  seconds[0] = std::chrono::duration<double>(listed - begin).count();
  seconds[1] = std::chrono::duration<double>(splatted - listed).count();
  seconds[2] = std::chrono::duration<double>(gathered - splatted).count();
  double total = 0;
  for (double value : squares) total += value;
  return total;
}
