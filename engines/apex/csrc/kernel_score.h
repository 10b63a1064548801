// Scores: products of queries with the keys of a tile. Included by kernel.cc alone, inside its namespace.
#pragma once

// Adds the products of N rows with H queries to their sums, row by row: memory is read front to back, which the
// hardware prefetcher follows. The queries stay in registers if they fit.
template <class T, int D, int H, int N, bool kAhead>
INLINE void multiply_rows(const float* query, GroupShape shape, const typename T::Storage* keys, const char* ahead,
                          Vec* sum) {
  const int dim = D ? D : shape.head_dim;
  const int row_bytes = dim * static_cast<int>(sizeof(typename T::Storage));
  const int padded = D ? D : shape.padded_dim;
  const int vectors = dim / kLanes;
  constexpr int kQueryVectors = H * D / kLanes;
  constexpr bool kHeld = D > 0 && kQueryVectors + H * N + 2 <= kRegisters;
  Vec held[kHeld ? kQueryVectors : 1];
  if constexpr (kHeld) {
    UNROLL
    for (int i = 0; i < kQueryVectors; ++i)
      held[i] = load(query + i * kLanes);
  }
  UNROLL
  for (int n = 0; n < N; ++n) {
    if constexpr (kAhead) prefetch_range(ahead + n * row_bytes, row_bytes);
    UNROLL
    for (int j = 0; j < vectors; ++j) {
      const Vec k = T::load(keys + n * dim + j * kLanes);
      UNROLL
      for (int h = 0; h < H; ++h) {
        const Vec q = kHeld ? held[kHeld ? h * (D / kLanes) + j : 0] : load(query + h * padded + j * kLanes);
        sum[h * N + n] = fma(q, k, sum[h * N + n]);
      }
    }
  }
}

// The same, column by column: each vector of a row serves all heads and each vector of a query all rows, so that loads
// do not limit the arithmetic. The strided reads lose the hardware prefetcher; such blocks prefetch for themselves.
template <class T, int D, int H, int N, bool kAhead>
INLINE void multiply_columns(const float* query, GroupShape shape, const typename T::Storage* keys, const char* ahead,
                             Vec* sum) {
  constexpr int kStepBytes = N * kLanes * static_cast<int>(sizeof(typename T::Storage));
  const int dim = D ? D : shape.head_dim;
  const int padded = D ? D : shape.padded_dim;
  const int vectors = dim / kLanes;
  UNROLL_TWICE
  for (int j = 0; j < vectors; ++j) {
    if constexpr (kAhead) prefetch_part<kStepBytes>(ahead, j * kStepBytes);
    Vec q[H];
    UNROLL
    for (int h = 0; h < H; ++h)
      q[h] = load(query + h * padded + j * kLanes);
    UNROLL
    for (int n = 0; n < N; ++n) {
      const Vec k = T::load(keys + n * dim + j * kLanes);
      UNROLL
      for (int h = 0; h < H; ++h)
        sum[h * N + n] = fma(q[h], k, sum[h * N + n]);
    }
  }
}

template <class T, int H, int N>
INLINE void multiply_tails(const float* query, GroupShape shape, const typename T::Storage* keys, Vec* sum) {
  const int column = shape.head_dim / kLanes * kLanes;
  const int tail = shape.head_dim % kLanes;
  for (int n = 0; tail > 0 && n < N; ++n) {
    const Vec k = load_first<T>(keys + n * shape.head_dim + column, tail);
    for (int h = 0; h < H; ++h) {
      sum[h * N + n] = fma(load(query + h * shape.padded_dim + column), k, sum[h * N + n]);
    }
  }
}

// Scores of N rows for H query heads: one accumulator each, so that neither a load nor a sum waits for the one before.
// A full block (H * N = lanes) is summed across lanes in one transposing tree.
template <class T, int D, int H, int N, bool kAhead>
INLINE void score_block(const float* query, GroupShape shape, const typename T::Storage* keys, const char* ahead,
                        float* scores) {
  Vec sum[H * N];
  UNROLL
  for (int i = 0; i < H * N; ++i)
    sum[i] = zero();
  if constexpr (H <= 2) {
    multiply_rows<T, D, H, N, kAhead>(query, shape, keys, ahead, sum);
  } else {
    multiply_columns<T, D, H, N, kAhead>(query, shape, keys, ahead, sum);
  }
  if constexpr (D == 0) multiply_tails<T, H, N>(query, shape, keys, sum);
  if constexpr (H * N == kLanes) {
    float each[kLanes];
    store(each, reduce_each(sum));
    UNROLL
    for (int h = 0; h < H; ++h)
      __builtin_memcpy(scores + h * kTileTokens, each + h * N, N * sizeof(float));
  } else {
    UNROLL
    for (int i = 0; i < H * N; ++i)
      scores[i / N * kTileTokens + i % N] = reduce_add(sum[i]);
  }
}

// N rows of a run from its row t on; kAhead: prefetches the same N rows of the next tile.
template <class T, int D, int H, int N, bool kAhead>
INLINE void score_rows(const float* query, GroupShape shape, const Run& run, int t, const Tile& next, float* scores) {
  using Storage = typename T::Storage;
  const int dim = D ? D : shape.head_dim;
  const int64_t row_bytes = dim * static_cast<int64_t>(sizeof(Storage));
  const char* keys = run.keys + t * row_bytes;
  const char* ahead = kAhead ? ahead_of(next.keys, next.tokens, run.first + t, row_bytes, keys) : nullptr;
  score_block<T, D, H, N, kAhead>(query, shape, reinterpret_cast<const Storage*>(keys), ahead, scores + run.first + t);
}

template <class T, int D, int H, bool kAhead>
INLINE void score_tile(const float* query, GroupShape shape, const Tile& tile, const Tile& next, float* scores) {
  constexpr int kBlock = kLanes / H;
  for (int r = 0; r < tile.runs; ++r) {
    const Run& run = tile.run[r];
    int t = 0;
    for (; t + kBlock <= run.count; t += kBlock) {
      score_rows<T, D, H, kBlock, kAhead>(query, shape, run, t, next, scores);
    }
    for (; t < run.count; ++t)
      score_rows<T, D, H, 1, kAhead>(query, shape, run, t, next, scores);
  }
}
