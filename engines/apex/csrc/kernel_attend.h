// Attention of the query heads of one group over one segment of a paged sequence, in one pass over K and V.
// Included by kernel.cc alone, inside its namespace.
//
// Decode attention reads every byte of K and V once and does little with it: 1 multiply-add per byte with one query
// head per K/V head, 4 with four. So everything here serves two ends: keep reads in flight, and keep accumulators in
// registers. A tile of rows is small enough for the first-level cache; all heads of the group, and every block of
// columns, work on it while it is there.
//
// Two ways keep reads in flight. Loops that read rows front to back let the hardware prefetcher run ahead: 32 GB/s
// where a plain read of the same memory reaches 34. Loops that reuse registers across rows and heads read with strides
// and lose it; they prefetch the same rows of the next tile by instructions: whole rows, because memory gives
// neighbouring lines sooner than scattered ones, and spread over the arithmetic, so that the buffers for outstanding
// lines are neither idle nor full.
#pragma once

// Online softmax of one head's scores in a tile: replaces them by their weights. The sums so far are rescaled only when
// the maximum rises, which becomes rare after the first tiles.
INLINE void soften(float* scores, int tokens, int padded, float* sums, float* maximum, float* weight_lanes) {
  const int rounded = (tokens + kLanes - 1) / kLanes * kLanes;
  for (int t = tokens; t < rounded; ++t)
    scores[t] = -kInfinity;
  Vec largest = load(scores);
  for (int t = kLanes; t < rounded; t += kLanes)
    largest = max(largest, load(scores + t));
  const float tile_maximum = reduce_max(largest);
  Vec weight = load(weight_lanes);
  if (tile_maximum > *maximum) {
    const Vec shrink = broadcast(exp2(*maximum - tile_maximum));
    *maximum = tile_maximum;
    weight = mul(weight, shrink);
    for (int i = 0; i < padded; i += kLanes)
      store(sums + i, mul(load(sums + i), shrink));
  }
  const Vec shift = broadcast(*maximum);
  for (int t = 0; t < rounded; t += kLanes) {
    const Vec w = exp2(sub(load(scores + t), shift));
    store(scores + t, w);
    weight = add(weight, w);
  }
  store(weight_lanes, weight);
}

// Adds the weighted values of a run of rows to C vectors of the sums of H heads, all held in registers. kAhead:
// prefetches this block's share of the next tile's rows, a whole row at a time, evenly spread over its own.
template <class T, int D, int H, int C, bool kAhead>
INLINE void weigh_columns(const float* weights, GroupShape shape, const Run& run, const Tile& next, int column, int end,
                          float* sums) {
  using Storage = typename T::Storage;
  const int dim = D ? D : shape.head_dim;
  const int padded = D ? D : shape.padded_dim;
  const int64_t row_bytes = dim * static_cast<int64_t>(sizeof(Storage));
  const int rows_per_prefetch = kAhead ? end / (C * kLanes) : run.count;
  int ahead = run.first + run.count * column / end;
  Vec sum[H * C];
  UNROLL
  for (int i = 0; i < H * C; ++i)
    sum[i] = load(sums + i / C * padded + column + i % C * kLanes);
  for (int t = 0; t < run.count; ++ahead) {
    if (kAhead && ahead < next.tokens) {
      prefetch_range(next.values[ahead / kAheadRows] + ahead % kAheadRows * row_bytes, row_bytes);
    }
    for (const int stop = least(t + rows_per_prefetch, run.count); t < stop; ++t) {
      const auto* row = reinterpret_cast<const Storage*>(run.values + t * row_bytes) + column;
      Vec w[H];
      UNROLL
      for (int h = 0; h < H; ++h)
        w[h] = broadcast(weights[h * kTileTokens + run.first + t]);
      UNROLL
      for (int c = 0; c < C; ++c) {
        const Vec v = T::load(row + c * kLanes);
        UNROLL
        for (int h = 0; h < H; ++h)
          sum[h * C + c] = fma(w[h], v, sum[h * C + c]);
      }
    }
  }
  UNROLL
  for (int i = 0; i < H * C; ++i)
    store(sums + i / C * padded + column + i % C * kLanes, sum[i]);
}

// Columns [column, end) in blocks of C vectors, then of half as many, down to one.
template <class T, int D, int H, int C, bool kAhead>
INLINE void weigh_from(const float* weights, GroupShape shape, const Run& run, const Tile& next, int column, int end,
                       float* sums) {
  for (; column + C * kLanes <= end; column += C * kLanes)
    weigh_columns<T, D, H, C, kAhead>(weights, shape, run, next, column, end, sums);
  if constexpr (C > 1) weigh_from<T, D, H, C / 2, kAhead>(weights, shape, run, next, column, end, sums);
}

template <class T, int H>
INLINE void weigh_tail(const float* weights, GroupShape shape, const Run& run, float* sums) {
  const int column = shape.head_dim / kLanes * kLanes;
  const int tail = shape.head_dim % kLanes;
  for (int t = 0; tail > 0 && t < run.count; ++t) {
    const auto* row =
        reinterpret_cast<const typename T::Storage*>(run.values) + t * static_cast<int64_t>(shape.head_dim);
    const Vec v = load_first<T>(row + column, tail);
    for (int h = 0; h < H; ++h) {
      float* sum = sums + h * shape.padded_dim + column;
      store(sum, fma(broadcast(weights[h * kTileTokens + run.first + t]), v, load(sum)));
    }
  }
}

template <class T, int D, int H, bool kAhead>
INLINE void weigh_tile(const float* weights, GroupShape shape, const Tile& tile, const Tile& next, float* sums) {
  constexpr int kBlock = kAccumulators / H < 8 ? kAccumulators / H : 8;
  const int end = D ? D : shape.head_dim / kLanes * kLanes;
  for (int r = 0; r < tile.runs; ++r) {
    weigh_from<T, D, H, kBlock, kAhead>(weights, shape, tile.run[r], next, 0, end, sums);
    if constexpr (D == 0) weigh_tail<T, H>(weights, shape, tile.run[r], sums);
  }
}

template <class T, int D, int H, bool kAhead>
void attend_heads(const float* query, GroupShape shape, const Tile& tile, const Tile& next, float* scores, float* sums,
                  float* maxima, float* weight_lanes) {
  const int padded = D ? D : shape.padded_dim;
  score_tile<T, D, H, kAhead>(query, shape, tile, next, scores);
  for (int h = 0; h < H; ++h) {
    soften(scores + h * kTileTokens, tile.tokens, padded, sums + h * padded, maxima + h, weight_lanes + h * kLanes);
  }
  weigh_tile<T, D, H, kAhead>(scores, shape, tile, next, sums);
}
