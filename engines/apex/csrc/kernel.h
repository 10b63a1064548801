// The interface between the kernels, built once per instruction set, and everything else, built once.
//
// Plain data and function pointers only: a header that is compiled with AVX-512 flags in one file and with baseline
// flags in another must not define inline functions, or the linker may keep the copy that faults on an old machine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace apex {

enum class Dtype : int32_t { kFloat32, kFloat16, kBfloat16, kInt32 };

// Tokens scored before their values are weighed. Tiles start at multiples of it counted from the beginning of the
// sequence, whatever the page size, so that the order of every sum depends on the sequence alone.
inline constexpr int kTileTokens = 32;

// Query and accumulator rows are padded to whole vectors of the widest instruction set.
inline constexpr int kPadFloats = 16;

// Whether rows of the next tile are prefetched by instructions. What is best depends on the machine: see kernel.cc.
enum class Prefetch : int32_t { kAuto, kAlways, kNever };

// How memory is read when nothing but reading it counts: front to back, the same with prefetches by instructions, and
// four parts side by side. Which is fastest depends on the machine.
enum class ReadPattern : int32_t { kForward, kAhead, kFourParts };

// The part of one sequence that one thread attends to, for the query heads that share one K/V head.
struct Segment {
  const char* keys;          // page 0 of this K/V head; rows of a page are contiguous: [page_tokens, head_dim]
  const char* values;        // the same
  int64_t key_page_bytes;    // from one page to the next
  int64_t value_page_bytes;  // the same
  const int32_t* page_ids;   // of the whole sequence, from its first token
  int32_t page_tokens;       //
  int32_t token_begin;       // a multiple of kTileTokens
  int32_t token_end;         // exclusive
  const Segment* next;       // what this thread attends to afterwards, to prefetch its first rows; may be null
  Prefetch prefetch;
};

// Softmax of one segment before normalisation, in units of log2: exp(x) = exp2(x * log2 e), and exp2 is cheaper.
struct Partial {
  float* sums;     // [group, padded_dim] weighted sums of values
  float* maxima;   // [group] largest score
  float* weights;  // [group] sum of exp2(score - maximum)
};

struct GroupShape {
  int32_t group;     // query heads that share the K/V head
  int32_t head_dim;  //
  int32_t padded_dim;
};

// One set of kernels. Every function works on rows whose last dimension is contiguous.
struct Kernels {
  const char* isa;

  // query [group, head_dim] (rows `row_bytes` apart) -> out [group, padded_dim], times `factor`, padded with zeros.
  void (*load_query)(const void* query, Dtype dtype, int64_t row_bytes, float factor, GroupShape shape, float* out);

  // Attention of query [group, padded_dim] over a segment. `scores` is scratch of [group, kTileTokens].
  void (*attend)(const Segment& segment, Dtype dtype, GroupShape shape, const float* query, float* scores, Partial out);

  // Merges `count` partials, `stride` floats apart, in their order, and writes out [group, head_dim] (rows `row_bytes`
  // apart) and, unless null, lse [group]: the natural logarithm of the sum of exponentials.
  void (*finish)(Partial first, int32_t count, int64_t stride, GroupShape shape, void* out, Dtype dtype,
                 int64_t row_bytes, float* lse);

  // out = weight_a * a + weight_b * b over `count` elements of one dtype, in float32.
  void (*blend)(const void* a, float weight_a, const void* b, float weight_b, void* out, Dtype dtype, int64_t count);

  // out = source over `count` elements, converting between float dtypes (to nearest even).
  void (*convert)(const void* source, Dtype source_dtype, void* out, Dtype out_dtype, int64_t count);

  // Reads a range once. What it returns means nothing but must be used.
  uint64_t (*read)(const char* data, int64_t bytes, ReadPattern pattern);
};

}  // namespace apex
