// Rows of the three storage types as vectors of float32, and exp2. Included by kernel.cc alone, inside its namespace.
#pragma once

struct Float32 {
  using Storage = float;
  static INLINE Vec load(const float* p) { return ::apex::KERNEL_ISA::load(p); }
  static INLINE void store(float* p, Vec x) { ::apex::KERNEL_ISA::store(p, x); }
};

struct Float16 {
  using Storage = uint16_t;
  static INLINE Vec load(const uint16_t* p) { return load_half(p); }
  static INLINE void store(uint16_t* p, Vec x) { store_half(p, x); }
};

struct Bfloat16 {
  using Storage = uint16_t;
  static INLINE Vec load(const uint16_t* p) { return load_bfloat(p); }
  static INLINE void store(uint16_t* p, Vec x) { store_bfloat(p, x); }
};

// The last, partial vector of a row whose length is no multiple of the lanes; the missing elements read as zero.
template <class T>
INLINE Vec load_first(const typename T::Storage* p, int count) {
  typename T::Storage row[kLanes] = {};
  for (int i = 0; i < count; ++i)
    row[i] = p[i];
  return T::load(row);
}

template <class T>
INLINE void store_first(typename T::Storage* p, Vec x, int count) {
  typename T::Storage row[kLanes];
  T::store(row, x);
  for (int i = 0; i < count; ++i)
    p[i] = row[i];
}

// Calls `body(vector index, first element, elements)` for the vectors of a row; all but the last one are full.
template <class Body>
INLINE void for_each_vector(int64_t elements, Body body) {
  int64_t first = 0;
  for (; first + kLanes <= elements; first += kLanes)
    body(first, kLanes);
  if (first < elements) body(first, static_cast<int>(elements - first));
}

template <class T>
INLINE Vec load_some(const typename T::Storage* p, int count) {
  return count == kLanes ? T::load(p) : load_first<T>(p, count);
}

template <class T>
INLINE void store_some(typename T::Storage* p, Vec x, int count) {
  if (count == kLanes) return T::store(p, x);
  store_first<T>(p, x, count);
}

// 2^x for x <= 0 with a relative error of 1e-7; zero where the result would be no normal number. The polynomial is the
// minimax approximation of 2^f on [-1/2, 1/2] with its constant pinned to 1, so that exp2(0) is exactly 1: the largest
// score of a softmax must weigh the same as it would alone.
INLINE Vec exp2(Vec x) {
  const Vec n = round(max(x, broadcast(-127.0f)));
  const Vec f = sub(max(x, broadcast(-127.0f)), n);
  Vec y = broadcast(1.535336172e-4f);
  y = fma(y, f, broadcast(1.339887448e-3f));
  y = fma(y, f, broadcast(9.618437359e-3f));
  y = fma(y, f, broadcast(5.550332471e-2f));
  y = fma(y, f, broadcast(2.402264791e-1f));
  y = fma(y, f, broadcast(6.931472029e-1f));
  y = fma(y, f, broadcast(1.0f));
  return scale_exp2(y, n, x);
}

INLINE float exp2(float x) {
  float lanes[kLanes];
  store(lanes, exp2(broadcast(x)));
  return lanes[0];
}
