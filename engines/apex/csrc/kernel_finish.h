// What surrounds attention: queries in, normalised rows out, conversions between storage types.
// Included by kernel.cc alone, inside its namespace.
#pragma once

template <class T>
void load_query_as(const void* query, int64_t row_bytes, float factor, GroupShape shape, float* out) {
  const Vec scale = broadcast(factor);
  for (int h = 0; h < shape.group; ++h) {
    const auto* row = reinterpret_cast<const typename T::Storage*>(static_cast<const char*>(query) + h * row_bytes);
    float* out_row = out + h * static_cast<int64_t>(shape.padded_dim);
    for (int i = shape.head_dim / kLanes * kLanes; i < shape.padded_dim; ++i)
      out_row[i] = 0.0f;
    for_each_vector(shape.head_dim,
                    [&](int64_t i, int count) { store(out_row + i, mul(load_some<T>(row + i, count), scale)); });
  }
}

// Normalised output of one head: sum over partials of sums * 2^(maximum - largest maximum), over the same of weights.
template <class T>
void finish_head(Partial first, int count, int64_t stride, int head, GroupShape shape, void* out, float* lse) {
  float largest = -kInfinity;
  for (int i = 0; i < count; ++i) {
    const float maximum = first.maxima[i * stride + head];
    largest = maximum > largest ? maximum : largest;
  }
  float weight = 0.0f;
  for (int i = 0; i < count; ++i) {
    weight += first.weights[i * stride + head] * exp2(first.maxima[i * stride + head] - largest);
  }
  const Vec normalise = broadcast(1.0f / weight);
  auto* out_row = static_cast<typename T::Storage*>(out);
  // Blocks of columns in registers, so that each partial's share is computed once per block and not once per vector.
  constexpr int kBlock = 8;
  for (int column = 0; column < shape.head_dim; column += kBlock * kLanes) {
    const float* sums = first.sums + head * static_cast<int64_t>(shape.padded_dim) + column;
    const int left = (shape.padded_dim - column) / kLanes;
    const int vectors = left < kBlock ? left : kBlock;
    Vec sum[kBlock];
    for (int v = 0; v < kBlock; ++v)
      sum[v] = zero();
    for (int i = 0; i < count; ++i) {
      const Vec share = exp2(broadcast(first.maxima[i * stride + head] - largest));
      for (int v = 0; v < vectors; ++v)
        sum[v] = fma(load(sums + i * stride + v * kLanes), share, sum[v]);
    }
    for (int v = 0; v < vectors; ++v) {
      const int elements = shape.head_dim - column - v * kLanes;
      if (elements > 0)
        store_some<T>(out_row + column + v * kLanes, mul(sum[v], normalise), elements < kLanes ? elements : kLanes);
    }
  }
  if (lse) *lse = static_cast<float>((largest + __builtin_log2(weight)) * 0.69314718055994531);
}

template <class T>
void finish_as(Partial first, int32_t count, int64_t stride, GroupShape shape, void* out, int64_t row_bytes,
               float* lse) {
  for (int h = 0; h < shape.group; ++h) {
    finish_head<T>(first, count, stride, h, shape, static_cast<char*>(out) + h * row_bytes, lse ? lse + h : nullptr);
  }
}

template <class T>
void blend_as(const void* a, float weight_a, const void* b, float weight_b, void* out, int64_t count) {
  using Storage = typename T::Storage;
  const auto* first = static_cast<const Storage*>(a);
  const auto* second = static_cast<const Storage*>(b);
  for_each_vector(count, [&](int64_t i, int elements) {
    const Vec weighted = mul(load_some<T>(first + i, elements), broadcast(weight_a));
    const Vec sum = fma(load_some<T>(second + i, elements), broadcast(weight_b), weighted);
    store_some<T>(static_cast<Storage*>(out) + i, sum, elements);
  });
}

template <class From, class To>
void convert_as(const void* source, void* out, int64_t count) {
  const auto* from = static_cast<const typename From::Storage*>(source);
  auto* to = static_cast<typename To::Storage*>(out);
  for_each_vector(
      count, [&](int64_t i, int elements) { store_some<To>(to + i, load_some<From>(from + i, elements), elements); });
}
