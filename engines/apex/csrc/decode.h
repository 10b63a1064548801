// One call of decode attention: a batch of sequences, one layer. Cuts it into pieces that any thread can take.
//
// A piece is (sequence, K/V head, chunk of tokens). Chunks have a fixed size, counted from the start of the sequence,
// and partial results are merged in their order by whichever thread completes the last one. So the bits of a row's
// result depend on its own query, keys and values alone: not on threads, timing, page size or the rest of the batch.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernel.h"
#include "paged.h"

namespace apex {

// Small enough to balance one short sequence over several cores (a chunk of head_dim 128 in 16 bit is 128 KiB, about
// 4 us), large enough that writing and merging its partial result is 1/250 of reading it.
inline constexpr int kChunkTokens = 256;

struct DecodeArguments {
  RowsView query;
  RowsView out;
  PagesView keys;
  PagesView values;
  IdsView page_table;
  const int32_t* context_lens = nullptr;
  float* lse = nullptr;  // may be null
  int64_t lse_row_stride = 0;
  float scale = 1.0f;
};

class DecodeJob {
 public:
  // Copies page table and context lengths, which the caller may then change; the tensors must outlive the run.
  // Nothing here is checked: the caller has done so.
  void prepare(const DecodeArguments& arguments, const Kernels& kernels, int workers);

  // Takes pieces until none is left. Every worker calls it once; true for the one that completes the job.
  bool run(int worker);

 private:
  struct Piece {
    int64_t row;
    int64_t head;
    int64_t chunk;
    Segment segment;
  };
  struct Range {
    int64_t next = 0;
    int64_t end = 0;
  };

  bool take(Range* range, Piece* piece);
  void attend(const Piece& piece, float* scratch);
  void merge(const Piece& piece, Partial first, int64_t chunks);
  Partial partial_at(float* memory) const;
  int64_t chunks_of(int64_t row) const;

  DecodeArguments arguments_;
  const Kernels* kernels_ = nullptr;
  Prefetch prefetch_ = Prefetch::kAuto;
  GroupShape shape_{};
  std::vector<int32_t> context_lens_;
  std::vector<int32_t> page_ids_;
  std::vector<int64_t> first_page_;                      // [rows] where a row's pages start in page_ids_
  std::vector<int64_t> first_piece_;                     // [rows + 1] pieces are numbered by row, then chunk, then head
  std::unique_ptr<std::atomic<int32_t>[]> chunks_left_;  // [rows * kv_heads]
  int64_t chunks_left_capacity_ = 0;

  // Floats: one scratch area per worker, then one partial result per piece.
  std::unique_ptr<float[]> memory_;
  int64_t memory_capacity_ = 0;
  float* scratch_ = nullptr;
  float* partials_ = nullptr;
  int64_t scratch_floats_ = 0;
  int64_t partial_floats_ = 0;

  int64_t range_pieces_ = 1;
  std::atomic<int64_t> next_piece_{0};
  std::atomic<int64_t> pieces_done_{0};
};

}  // namespace apex
