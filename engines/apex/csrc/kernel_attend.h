// Attention of the query heads of one group over one segment of a paged sequence, in one pass over K and V.
// Included by kernel.cc alone, inside its namespace.
//
// Decode attention reads every byte of K and V once and does little with it: 1 multiply-add per byte with one query
// head per K/V head, 4 with four. So everything here serves two ends: keep reads in flight, and keep accumulators in
// registers. A tile of rows is small enough for the first-level cache; all heads of the group, and every block of
// columns, work on it while it is there, and meanwhile the same row of the next tile is prefetched. Prefetching at the
// pace of the arithmetic keeps the line-fill buffers busy all the time; a burst per tile fills them and then stalls.
#pragma once

// Rows of one tile that lie in one page.
struct Run {
  const char* keys;
  const char* values;
  int first;
  int count;
};

constexpr int kAheadRows = 16;

struct Tile {
  int tokens;
  int runs;
  Run run[kTileTokens];
  const char* keys[kTileTokens / kAheadRows];  // row 0, 16, ... for prefetching; exact when pages hold multiples of 16
  const char* values[kTileTokens / kAheadRows];  // the same
};

// Finds the rows of the tile that starts at `token` (before segment.token_end).
INLINE void locate(const Segment& segment, int token, int64_t row_bytes, Tile* tile) {
  const int left = segment.token_end - token;
  tile->tokens = left < kTileTokens ? left : kTileTokens;
  tile->runs = 0;
  int page = token / segment.page_tokens;
  int offset = token - page * segment.page_tokens;
  int ahead = 0;
  for (int done = 0; done < tile->tokens;) {
    const int in_page = segment.page_tokens - offset;
    const int count = tile->tokens - done < in_page ? tile->tokens - done : in_page;
    const int64_t id = segment.page_ids[page];
    const char* keys = segment.keys + id * segment.key_page_bytes + offset * row_bytes;
    const char* values = segment.values + id * segment.value_page_bytes + offset * row_bytes;
    for (; ahead * kAheadRows < done + count; ++ahead) {
      tile->keys[ahead] = keys + (ahead * kAheadRows - done) * row_bytes;
      tile->values[ahead] = values + (ahead * kAheadRows - done) * row_bytes;
    }
    tile->run[tile->runs++] = Run{keys, values, done, count};
    done += count;
    offset = 0;
    ++page;
  }
}

// Where to prefetch while row `row` of a tile is worked on: the same row of the next tile, or, beyond its end, the row
// itself, which is in the cache already and costs nothing.
INLINE const char* ahead_of(const char* const* next_rows, int next_tokens, int row, int64_t row_bytes,
                            const char* self) {
  if (row >= next_tokens) return self;
  return next_rows[row / kAheadRows] + (row % kAheadRows) * row_bytes;
}

constexpr int kLineBytes = 64;

// Prefetches kBytes (a power of two) from `offset`; a part of a line that does not begin one is left to the part that
// does.
template <int kBytes>
INLINE void prefetch_part(const char* p, int offset) {
  if constexpr (kBytes >= kLineBytes) {
    UNROLL
    for (int byte = 0; byte < kBytes; byte += kLineBytes)
      prefetch(p + offset + byte);
  } else {
    if (offset % kLineBytes == 0) prefetch(p + offset);
  }
}

// Scores of N rows for H query heads: one accumulator each, so that neither a load nor a sum waits for the one before.
// A full block (H * N = lanes) is summed across lanes in one transposing tree. kAhead: also prefetch N rows.
template <class T, int D, int H, int N, bool kAhead>
INLINE void score_block(const float* query, GroupShape shape, const typename T::Storage* keys, const char* ahead,
                        float* scores) {
  const int dim = D ? D : shape.head_dim;
  const int padded = D ? D : shape.padded_dim;
  constexpr int kStepBytes = N * kLanes * static_cast<int>(sizeof(typename T::Storage));
  Vec sum[H * N];
  UNROLL
  for (int i = 0; i < H * N; ++i)
    sum[i] = zero();
  const int vectors = dim / kLanes;
  UNROLL_TWICE
  for (int j = 0; j < vectors; ++j) {
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
    if constexpr (kAhead) prefetch_part<kStepBytes>(ahead, j * kStepBytes);
  }
  if constexpr (D == 0) {
    const int tail = dim % kLanes;
    for (int n = 0; tail > 0 && n < N; ++n) {
      const Vec k = load_first<T>(keys + n * dim + vectors * kLanes, tail);
      for (int h = 0; h < H; ++h) {
        sum[h * N + n] = fma(load(query + h * padded + vectors * kLanes), k, sum[h * N + n]);
      }
    }
  }
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

template <class T, int D, int H, bool kAhead>
INLINE void score_tile(const float* query, GroupShape shape, const Tile& tile, const Tile& next, float* scores) {
  using Storage = typename T::Storage;
  constexpr int kBlock = kLanes / H;
  const int dim = D ? D : shape.head_dim;
  const int64_t row_bytes = dim * static_cast<int64_t>(sizeof(Storage));
  for (int r = 0; r < tile.runs; ++r) {
    const Run& run = tile.run[r];
    int t = 0;
    for (; t + kBlock <= run.count; t += kBlock) {
      const char* keys = run.keys + t * row_bytes;
      const char* ahead = kAhead ? ahead_of(next.keys, next.tokens, run.first + t, row_bytes, keys) : nullptr;
      score_block<T, D, H, kBlock, kAhead>(query, shape, reinterpret_cast<const Storage*>(keys), ahead,
                                           scores + run.first + t);
    }
    for (; t < run.count; ++t) {
      const char* keys = run.keys + t * row_bytes;
      const char* ahead = kAhead ? ahead_of(next.keys, next.tokens, run.first + t, row_bytes, keys) : nullptr;
      score_block<T, D, H, 1, kAhead>(query, shape, reinterpret_cast<const Storage*>(keys), ahead,
                                      scores + run.first + t);
    }
  }
}

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

// Adds the weighted values of a run of rows to C vectors of the sums of H heads, all held in registers.
template <class T, int D, int H, int C, bool kAhead>
INLINE void weigh_columns(const float* weights, GroupShape shape, const Run& run, const Tile& next, int column,
                          float* sums) {
  using Storage = typename T::Storage;
  const int dim = D ? D : shape.head_dim;
  const int padded = D ? D : shape.padded_dim;
  const int64_t row_bytes = dim * static_cast<int64_t>(sizeof(Storage));
  const int first_byte = column * static_cast<int>(sizeof(Storage));
  constexpr int kBytes = C * kLanes * static_cast<int>(sizeof(Storage));
  Vec sum[H * C];
  UNROLL
  for (int i = 0; i < H * C; ++i)
    sum[i] = load(sums + i / C * padded + column + i % C * kLanes);
  for (int t = 0; t < run.count; ++t) {
    const char* row = run.values + t * row_bytes;
    if constexpr (kAhead) {
      prefetch_part<kBytes>(ahead_of(next.values, next.tokens, run.first + t, row_bytes, row), first_byte);
    }
    Vec w[H];
    UNROLL
    for (int h = 0; h < H; ++h)
      w[h] = broadcast(weights[h * kTileTokens + run.first + t]);
    UNROLL
    for (int c = 0; c < C; ++c) {
      const Vec v = T::load(reinterpret_cast<const Storage*>(row) + column + c * kLanes);
      UNROLL
      for (int h = 0; h < H; ++h)
        sum[h * C + c] = fma(w[h], v, sum[h * C + c]);
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
  for (; column + C * kLanes <= end; column += C * kLanes) {
    weigh_columns<T, D, H, C, kAhead>(weights, shape, run, next, column, sums);
  }
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
