// Vectors of 8 floats: AVX2, FMA, F16C. Included by kernel.cc alone, inside its namespace.
#pragma once

using Vec = __m256;
constexpr int kLanes = 8;
// 16 registers: 8 accumulators, up to 4 broadcast weights or query vectors, one row of K or V, temporaries.
constexpr int kAccumulators = 8;
constexpr int kRegisters = 16;
// Heads per block whose loops read rows front to back and leave prefetching to the hardware. None: a machine without
// AVX-512 (Zen 3) reaches 0.74 of the read bandwidth with prefetches and 0.60 without, one head per K/V head.
constexpr int kStreamedHeads = 0;

INLINE Vec zero() { return _mm256_setzero_ps(); }
INLINE Vec broadcast(float x) { return _mm256_set1_ps(x); }
INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
INLINE void store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
INLINE Vec round(Vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

// x * 2^n for integral n, zero where `argument` is below the range of normal numbers.
INLINE Vec scale_exp2(Vec x, Vec n, Vec argument) {
  const __m256 normal = _mm256_cmp_ps(argument, _mm256_set1_ps(-126.0f), _CMP_GE_OQ);
  const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  const __m256 scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), exponent));
  return _mm256_and_ps(normal, scaled);
}

INLINE Vec load_half(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
INLINE void store_half(uint16_t* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

INLINE Vec load_bfloat(const uint16_t* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
INLINE void store_bfloat(uint16_t* p, Vec x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  // Packing works within 128-bit halves: bring both results together afterwards.
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}

// Sums are taken in one fixed tree (lanes l and l + 4, then + 2, + 1), here and in reduce_each, so that a score has
// the same bits whether its token was part of a full block or not.
INLINE float reduce_add(Vec x) {
  x = _mm256_add_ps(x, _mm256_permute2f128_ps(x, x, 0x01));
  x = _mm256_add_ps(x, _mm256_permute_ps(x, 0x4E));
  x = _mm256_add_ps(x, _mm256_permute_ps(x, 0xB1));
  return _mm256_cvtss_f32(x);
}
INLINE float reduce_max(Vec x) {
  x = _mm256_max_ps(x, _mm256_permute2f128_ps(x, x, 0x01));
  x = _mm256_max_ps(x, _mm256_permute_ps(x, 0x4E));
  x = _mm256_max_ps(x, _mm256_permute_ps(x, 0xB1));
  return _mm256_cvtss_f32(x);
}

// Lane i of the result is the sum of the lanes of a[i]: 7 additions for 8 sums instead of 24.
// Each step adds the halves of two vectors at once; feeding them in kOrder makes the lanes come out in order.
INLINE Vec reduce_each(const Vec* a) {
  constexpr int kOrder[8] = {0, 2, 1, 3, 4, 6, 5, 7};
  Vec b[4];
  Vec c[2];
  UNROLL
  for (int i = 0; i < 4; ++i) {
    const Vec x = a[kOrder[i]];
    const Vec y = a[kOrder[i + 4]];
    b[i] = _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
  }
  UNROLL
  for (int i = 0; i < 2; ++i) {
    const __m256d x = _mm256_castps_pd(b[i]);
    const __m256d y = _mm256_castps_pd(b[i + 2]);
    c[i] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)), _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
  }
  return _mm256_add_ps(_mm256_shuffle_ps(c[0], c[1], 0x88), _mm256_shuffle_ps(c[0], c[1], 0xDD));
}

// Into the second level: the first has some 24 line-fill buffers, and at 100 ns per line they alone would limit one
// core to 15 GB/s (measured: 12 GB/s into the first level, 21 into the second).
INLINE void prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }
