// Vectors of 16 floats: AVX-512 F, BW, VL, DQ. Included by kernel.cc alone, inside its namespace.
#pragma once

using Vec = __m512;
constexpr int kLanes = 16;
// 32 registers: 16 accumulators leave room for the operands of a fused multiply-add and the addresses' spills.
constexpr int kAccumulators = 16;
constexpr int kRegisters = 32;
// Heads per block whose loops read rows front to back, fast enough for the hardware prefetcher to follow (measured).
constexpr int kStreamedHeads = 2;

INLINE Vec zero() { return _mm512_setzero_ps(); }
INLINE Vec broadcast(float x) { return _mm512_set1_ps(x); }
INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
INLINE void store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
INLINE Vec round(Vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

// x * 2^n for integral n, zero where `argument` is below the range of normal numbers.
INLINE Vec scale_exp2(Vec x, Vec n, Vec argument) {
  const __mmask16 normal = _mm512_cmp_ps_mask(argument, _mm512_set1_ps(-126.0f), _CMP_GE_OQ);
  return _mm512_maskz_scalef_ps(normal, x, n);
}

INLINE Vec load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
INLINE void store_half(uint16_t* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

INLINE Vec load_bfloat(const uint16_t* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
INLINE void store_bfloat(uint16_t* p, Vec x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
}

// Sums are taken in one fixed tree (lanes l and l + 8, then + 4, + 2, + 1), here and in reduce_each, so that a score
// has the same bits whether its token was part of a full block or not.
INLINE float reduce_add(Vec x) {
  x = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0x4E));
  x = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0xB1));
  x = _mm512_add_ps(x, _mm512_permute_ps(x, 0x4E));
  x = _mm512_add_ps(x, _mm512_permute_ps(x, 0xB1));
  return _mm512_cvtss_f32(x);
}
INLINE float reduce_max(Vec x) {
  x = _mm512_max_ps(x, _mm512_shuffle_f32x4(x, x, 0x4E));
  x = _mm512_max_ps(x, _mm512_shuffle_f32x4(x, x, 0xB1));
  x = _mm512_max_ps(x, _mm512_permute_ps(x, 0x4E));
  x = _mm512_max_ps(x, _mm512_permute_ps(x, 0xB1));
  return _mm512_cvtss_f32(x);
}

// Lane i of the result is the sum of the lanes of a[i]: 15 additions for 16 sums instead of 64.
// Each step adds the halves of two vectors at once; feeding them in kOrder makes the lanes come out in order.
INLINE Vec reduce_each(const Vec* a) {
  constexpr int kOrder[16] = {0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15};
  Vec b[8];
  Vec c[4];
  Vec d[2];
  UNROLL
  for (int i = 0; i < 8; ++i) {
    const Vec x = a[kOrder[i]];
    const Vec y = a[kOrder[i + 8]];
    b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xEE));
  }
  UNROLL
  for (int i = 0; i < 4; ++i) {
    c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[i], b[i + 4], 0x88), _mm512_shuffle_f32x4(b[i], b[i + 4], 0xDD));
  }
  UNROLL
  for (int i = 0; i < 2; ++i) {
    const __m512d x = _mm512_castps_pd(c[i]);
    const __m512d y = _mm512_castps_pd(c[i + 2]);
    d[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  return _mm512_add_ps(_mm512_shuffle_ps(d[0], d[1], 0x88), _mm512_shuffle_ps(d[0], d[1], 0xDD));
}

// Into the second level: the first has some 24 line-fill buffers, and at 100 ns per line they alone would limit one
// core to 15 GB/s (measured: 12 GB/s into the first level, 21 into the second).
INLINE void prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }
