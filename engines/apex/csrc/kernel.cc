// The kernels, compiled once per instruction set into the namespace apex::KERNEL_ISA.
//
// No header of the standard library beyond the two plain ones: an inline function instantiated here with AVX-512
// instructions could be the copy the linker keeps for the whole extension. Everything below has internal linkage for
// the same reason; only the table leaves this file.
#include "kernel.h"

#if defined(KERNEL_AVX512) || defined(KERNEL_AVX2)
#  include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
// Arrays of vectors stay in registers only if every loop over them is unrolled completely; gcc needs to be told.
// Not where every access is instrumented: the compiler would take a quarter of an hour, and nobody asks for speed.
#if defined(KERNEL_ROLLED)
#  define UNROLL
#  define UNROLL_TWICE
#elif defined(__clang__)
#  define UNROLL _Pragma("clang loop unroll(full)")
#  define UNROLL_TWICE _Pragma("clang loop unroll_count(2)")
#else
#  define UNROLL _Pragma("GCC unroll 32")
#  define UNROLL_TWICE _Pragma("GCC unroll 2")
#endif
#define QUOTE(name) #name
#define NAME_OF(macro) QUOTE(macro)

namespace apex::KERNEL_ISA {

extern const Kernels kKernels;

namespace {

constexpr float kInfinity = __builtin_inff();

#if defined(KERNEL_AVX512)
#  include "simd_avx512.h"
#elif defined(KERNEL_AVX2)
#  include "simd_avx2.h"
#else
#  include "simd_scalar.h"
#endif

// Each of these builds on the ones before it.
// clang-format off
#include "kernel_rows.h"
#include "kernel_tile.h"
#include "kernel_score.h"
#include "kernel_attend.h"
#include "kernel_finish.h"
#include "kernel_read.h"
// clang-format on

// The heads of a group in blocks of four, two and one; the rows of the tile stay in the first-level cache in between.
template <class T, int D>
void attend_tile(const float* query, GroupShape shape, const Tile& tile, const Tile& next, Prefetch prefetch,
                 float* scratch, Partial out) {
  const int padded = D ? D : shape.padded_dim;
  const int64_t row_bytes = (D ? D : shape.head_dim) * static_cast<int64_t>(sizeof(typename T::Storage));
  // Rows of float32 need no conversion; loads then run so far ahead that the hardware prefetcher is no help (measured).
  constexpr int kStreamed = sizeof(typename T::Storage) == 2 ? kStreamedHeads : 0;
  float* lanes = scratch + shape.group * kTileTokens;
  int h = 0;
  const auto heads = [&](auto kernel, int count) {
    kernel(query + h * padded, shape, tile, next, scratch + h * kTileTokens, out.sums + h * padded, out.maxima + h,
           lanes + h * kLanes);
    h += count;
  };
  const int first = shape.group >= 4 ? 4 : shape.group >= 2 ? 2 : 1;
  const bool ahead = next.tokens > 0 && prefetch != Prefetch::kNever &&
                     (prefetch == Prefetch::kAlways || first > kStreamed || jumps(tile, next, row_bytes));
  // Only the first block of heads prefetches: the next tile needs to be fetched once.
  if (ahead && first == 4) heads(attend_heads<T, D, 4, true>, 4);
  if (ahead && first == 2) heads(attend_heads<T, D, 2, true>, 2);
  if (ahead && first == 1) heads(attend_heads<T, D, 1, true>, 1);
  while (shape.group - h >= 4)
    heads(attend_heads<T, D, 4, false>, 4);
  if (shape.group - h >= 2) heads(attend_heads<T, D, 2, false>, 2);
  if (shape.group - h >= 1) heads(attend_heads<T, D, 1, false>, 1);
}

template <class T, int D>
void attend_segment(const Segment& segment, GroupShape shape, const float* query, float* scratch, Partial out) {
  const int64_t row_bytes = (D ? D : shape.head_dim) * static_cast<int64_t>(sizeof(typename T::Storage));
  const int padded = D ? D : shape.padded_dim;
  float* lanes = scratch + shape.group * kTileTokens;
  for (int i = 0; i < shape.group * padded; ++i)
    out.sums[i] = 0.0f;
  for (int i = 0; i < shape.group * kLanes; ++i)
    lanes[i] = 0.0f;
  for (int h = 0; h < shape.group; ++h)
    out.maxima[h] = -kInfinity;

  Tile tiles[2];
  Tile* tile = &tiles[0];
  Tile* next = &tiles[1];
  locate(segment, segment.token_begin, row_bytes, tile);
  for (int token = segment.token_begin; token < segment.token_end; token += kTileTokens) {
    next->tokens = 0;
    if (token + kTileTokens < segment.token_end) {
      locate(segment, token + kTileTokens, row_bytes, next);
    } else if (segment.next) {
      locate(*segment.next, segment.next->token_begin, row_bytes, next);
    }
    attend_tile<T, D>(query, shape, *tile, *next, segment.prefetch, scratch, out);
    Tile* done = tile;
    tile = next;
    next = done;
  }
  for (int h = 0; h < shape.group; ++h)
    out.weights[h] = reduce_add(load(lanes + h * kLanes));
}

template <class T>
void attend_as(const Segment& segment, GroupShape shape, const float* query, float* scratch, Partial out) {
  switch (shape.head_dim) {
    case 64:
      return attend_segment<T, 64>(segment, shape, query, scratch, out);
    case 80:
      return attend_segment<T, 80>(segment, shape, query, scratch, out);
    case 96:
      return attend_segment<T, 96>(segment, shape, query, scratch, out);
    case 128:
      return attend_segment<T, 128>(segment, shape, query, scratch, out);
    case 256:
      return attend_segment<T, 256>(segment, shape, query, scratch, out);
    default:
      return attend_segment<T, 0>(segment, shape, query, scratch, out);
  }
}

// Calls `body` with the type that stands for `dtype`.
template <class Body>
INLINE void with_type(Dtype dtype, Body body) {
  switch (dtype) {
    case Dtype::kFloat32:
      return body(Float32{});
    case Dtype::kFloat16:
      return body(Float16{});
    default:
      return body(Bfloat16{});
  }
}

void load_query(const void* query, Dtype dtype, int64_t row_bytes, float factor, GroupShape shape, float* out) {
  with_type(dtype, [&](auto type) { load_query_as<decltype(type)>(query, row_bytes, factor, shape, out); });
}

void attend(const Segment& segment, Dtype dtype, GroupShape shape, const float* query, float* scratch, Partial out) {
  with_type(dtype, [&](auto type) { attend_as<decltype(type)>(segment, shape, query, scratch, out); });
}

void finish(Partial first, int32_t count, int64_t stride, GroupShape shape, void* out, Dtype dtype, int64_t row_bytes,
            float* lse) {
  with_type(dtype, [&](auto type) { finish_as<decltype(type)>(first, count, stride, shape, out, row_bytes, lse); });
}

void blend(const void* a, float weight_a, const void* b, float weight_b, void* out, Dtype dtype, int64_t count) {
  with_type(dtype, [&](auto type) { blend_as<decltype(type)>(a, weight_a, b, weight_b, out, count); });
}

void convert(const void* source, Dtype source_dtype, void* out, Dtype out_dtype, int64_t count) {
  with_type(source_dtype, [&](auto from) {
    with_type(out_dtype, [&](auto to) { convert_as<decltype(from), decltype(to)>(source, out, count); });
  });
}

}  // namespace

const Kernels kKernels = {NAME_OF(KERNEL_ISA), load_query, attend, finish, blend, convert, read};

}  // namespace apex::KERNEL_ISA
