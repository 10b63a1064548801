// Vectors of 4 floats without intrinsics, for machines that have neither AVX2 nor AVX-512, x86 or not.
// The compiler maps them to whatever the baseline offers. Included by kernel.cc alone, inside its namespace.
#pragma once

typedef float Vec __attribute__((vector_size(16)));
typedef uint32_t Bits __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
constexpr int kLanes = 4;
constexpr int kAccumulators = 4;
constexpr int kRegisters = 16;
constexpr int kStreamedHeads = 1;

INLINE Vec zero() { return Vec{0.0f, 0.0f, 0.0f, 0.0f}; }
INLINE Vec broadcast(float x) { return Vec{x, x, x, x}; }
INLINE Vec load(const float* p) {
  Vec x;
  __builtin_memcpy(&x, p, sizeof(x));
  return x;
}
INLINE void store(float* p, Vec x) { __builtin_memcpy(p, &x, sizeof(x)); }
INLINE Vec add(Vec a, Vec b) { return a + b; }
INLINE Vec sub(Vec a, Vec b) { return a - b; }
INLINE Vec mul(Vec a, Vec b) { return a * b; }
INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
INLINE Vec select(Ints mask, Vec a, Vec b) { return (Vec)(((Bits)mask & (Bits)a) | (~(Bits)mask & (Bits)b)); }
INLINE Vec max(Vec a, Vec b) { return select(a > b, a, b); }
INLINE float max_of(float a, float b) { return a > b ? a : b; }

// Nearest integer for |x| < 2^22: adding 1.5 * 2^23 pushes the fraction out of the mantissa.
INLINE Vec round(Vec x) {
  const Vec shift = broadcast(12582912.0f);
  return (x + shift) - shift;
}

// x * 2^n for integral n, zero where `argument` is below the range of normal numbers.
INLINE Vec scale_exp2(Vec x, Vec n, Vec argument) {
  const Ints normal = argument >= broadcast(-126.0f);
  const Vec safe = select(normal, n, zero());
  const Ints exponent = {(int32_t)safe[0], (int32_t)safe[1], (int32_t)safe[2], (int32_t)safe[3]};
  const Vec scaled = (Vec)((Bits)x + ((Bits)exponent << 23));
  return select(normal, scaled, zero());
}

// Widening shifts exponent and mantissa into place; one multiplication then corrects the bias, denormals included.
INLINE Vec load_half(const uint16_t* p) {
  const Bits half = {p[0], p[1], p[2], p[3]};
  const Bits magnitude = (half & 0x7fffu) << 13;
  const Bits infinite = (Bits)(magnitude >= 0x0f800000u) & 0x7f800000u;
  const Vec value = (Vec)magnitude * broadcast(0x1p112f);
  return (Vec)((Bits)value | infinite | ((half & 0x8000u) << 16));
}

INLINE uint16_t half_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((bits >> 13) & 0x3ffu));
  if (bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (bits < 0x38800000u) {  // below 2^-14: the unit of 0.5f is that of a half denormal, so adding it rounds
    float value;
    __builtin_memcpy(&value, &bits, sizeof(value));
    value += 0.5f;
    __builtin_memcpy(&bits, &value, sizeof(bits));
    return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13));
}
INLINE void store_half(uint16_t* p, Vec x) {
  for (int i = 0; i < kLanes; ++i)
    p[i] = half_of(x[i]);
}

INLINE Vec load_bfloat(const uint16_t* p) {
  const Bits bits = {p[0], p[1], p[2], p[3]};
  return (Vec)(bits << 16);
}
INLINE void store_bfloat(uint16_t* p, Vec x) {
  const Bits bits = (Bits)x;
  const Bits rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const Bits kept = (Bits)select(x != x, (Vec)(bits | 0x400000u), (Vec)rounded) >> 16;
  for (int i = 0; i < kLanes; ++i)
    p[i] = static_cast<uint16_t>(kept[i]);
}

// One fixed tree (lanes l and l + 2, then + 1), as in the wider instruction sets.
INLINE float reduce_add(Vec x) { return (x[0] + x[2]) + (x[1] + x[3]); }
INLINE float reduce_max(Vec x) { return max_of(max_of(x[0], x[2]), max_of(x[1], x[3])); }
INLINE Vec reduce_each(const Vec* a) {
  return Vec{reduce_add(a[0]), reduce_add(a[1]), reduce_add(a[2]), reduce_add(a[3])};
}

INLINE void prefetch(const char* p) { __builtin_prefetch(p, 0, 2); }
