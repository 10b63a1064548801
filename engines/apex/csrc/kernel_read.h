// Reads memory and does nothing with it: what the machine gives, which no kernel here can exceed.
// Included by kernel.cc alone, inside its namespace.
#pragma once

typedef uint64_t Words __attribute__((vector_size(kLanes * sizeof(float)), aligned(1), may_alias));

constexpr int kReadBytes = 256;  // of one stream before the next one's turn

// kStreams equal parts of the range, read side by side. kAheadBytes > 0: prefetches so far ahead by instructions.
// The result depends on every byte read, so that no read can be left out.
template <int kStreams, int kAheadBytes>
uint64_t read_streams(const char* data, int64_t bytes) {
  constexpr int kVectors = kReadBytes / static_cast<int>(sizeof(Words));
  constexpr int kSums = kVectors < 4 ? kVectors : 4;
  const int64_t part = bytes / kStreams / kReadBytes * kReadBytes;
  Words sum[kSums] = {};
  for (int64_t at = 0; at < part; at += kReadBytes) {
    UNROLL
    for (int s = 0; s < kStreams; ++s) {
      const char* p = data + s * part + at;
      if constexpr (kAheadBytes > 0) prefetch_range(p + kAheadBytes, kReadBytes);
      UNROLL
      for (int v = 0; v < kVectors; ++v)
        sum[v % kSums] ^= *reinterpret_cast<const Words*>(p + v * sizeof(Words));
    }
  }
  uint64_t all = 0;
  for (int i = 0; i < kSums; ++i) {
    for (size_t lane = 0; lane < sizeof(Words) / sizeof(uint64_t); ++lane)
      all ^= sum[i][lane];
  }
  return all;
}

uint64_t read(const char* data, int64_t bytes, ReadPattern pattern) {
  switch (pattern) {
    case ReadPattern::kForward:
      return read_streams<1, 0>(data, bytes);
    case ReadPattern::kAhead:
      return read_streams<1, 2048>(data, bytes);
    default:
      return read_streams<4, 0>(data, bytes);
  }
}
