// Where the rows of a tile lie in a paged store, and prefetching those of the next one.
// Included by kernel.cc alone, inside its namespace.
#pragma once

INLINE int least(int a, int b) { return a < b ? a : b; }

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
  tile->tokens = least(left, kTileTokens);
  tile->runs = 0;
  int page = token / segment.page_tokens;
  int offset = token - page * segment.page_tokens;
  int ahead = 0;
  for (int done = 0; done < tile->tokens;) {
    const int count = least(tile->tokens - done, segment.page_tokens - offset);
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

// Whether the first row of `next` does not follow the last one of `tile` in memory: the hardware prefetcher stops
// there.
INLINE bool jumps(const Tile& tile, const Tile& next, int64_t row_bytes) {
  const Run& last = tile.run[tile.runs - 1];
  return tile.runs > 1 || next.run[0].keys != last.keys + last.count * row_bytes;
}

// Where to prefetch while row `row` of a tile is worked on: the same row of the next tile, or, beyond its end, the row
// itself, which is in the cache already and costs nothing.
INLINE const char* ahead_of(const char* const* next_rows, int next_tokens, int row, int64_t row_bytes,
                            const char* self) {
  if (row >= next_tokens) return self;
  return next_rows[row / kAheadRows] + (row % kAheadRows) * row_bytes;
}

constexpr int kLineBytes = 64;

// Prefetches a range; constant sizes leave nothing but the prefetches.
INLINE void prefetch_range(const char* p, int64_t bytes) {
  UNROLL
  for (int64_t byte = 0; byte < bytes; byte += kLineBytes)
    prefetch(p + byte);
}

// Prefetches kBytes (a power of two) of a range from `offset` on. A part narrower than a line fetches only a line that
// it begins; the part that begins the line has fetched the others.
template <int kBytes>
INLINE void prefetch_part(const char* p, int offset) {
  if (kBytes >= kLineBytes || offset % kLineBytes == 0) prefetch_range(p + offset, kBytes);
}
