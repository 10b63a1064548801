#include "decode.h"

#include <algorithm>

#include "dispatch.h"

namespace apex {

namespace {

constexpr int64_t kRangesPerWorker = 16;  // the last range to end is then some 1/16 of a worker's share
constexpr int64_t kMaxRangePieces = 8;
constexpr int64_t kLineFloats = 16;  // no two threads write to one cache line

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

float* align(float* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return p + (round_up(address, kLineFloats * sizeof(float)) - address) / sizeof(float);
}

}  // namespace

void DecodeJob::prepare(const DecodeArguments& arguments, const Kernels& kernels, int workers) {
  arguments_ = arguments;
  kernels_ = &kernels;
  prefetch_ = active_prefetch();
  const int64_t rows = arguments.query.rows;
  const int64_t heads = arguments.keys.heads;
  const auto group = static_cast<int32_t>(arguments.query.heads / heads);
  const auto head_dim = static_cast<int32_t>(arguments.query.head_dim);
  shape_ = {group, head_dim, static_cast<int32_t>(round_up(head_dim, kPadFloats))};

  context_lens_.assign(arguments.context_lens, arguments.context_lens + rows);
  page_ids_.clear();
  first_page_.resize(rows);
  first_piece_.resize(rows + 1);
  first_piece_[0] = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t pages = (context_lens_[row] + arguments.keys.page_tokens - 1) / arguments.keys.page_tokens;
    const int32_t* ids = arguments.page_table.row(row);
    first_page_[row] = static_cast<int64_t>(page_ids_.size());
    page_ids_.insert(page_ids_.end(), ids, ids + pages);
    first_piece_[row + 1] = first_piece_[row] + heads * chunks_of(row);
  }

  if (chunks_left_capacity_ < rows * heads) {
    chunks_left_ = std::make_unique<std::atomic<int32_t>[]>(rows * heads);
    chunks_left_capacity_ = rows * heads;
  }
  for (int64_t i = 0; i < rows * heads; ++i) {
    chunks_left_[i].store(static_cast<int32_t>(chunks_of(i / heads)), std::memory_order_relaxed);
  }

  partial_floats_ = round_up(group * (shape_.padded_dim + 2), kLineFloats);
  scratch_floats_ = partial_floats_ + round_up(group * (shape_.padded_dim + kTileTokens + kPadFloats), kLineFloats);
  const int64_t needed = workers * scratch_floats_ + first_piece_[rows] * partial_floats_ + kLineFloats;
  if (memory_capacity_ < needed) {
    memory_.reset(new float[needed]);  // not zeroed: every float is written before it is read
    memory_capacity_ = needed;
  }
  scratch_ = align(memory_.get());
  partials_ = scratch_ + workers * scratch_floats_;
  // Threads take several pieces at a time when there are many: neighbours lie next to each other in memory.
  range_pieces_ = std::clamp(first_piece_[rows] / (workers * kRangesPerWorker), int64_t{1}, kMaxRangePieces);
  pieces_done_.store(0, std::memory_order_relaxed);
  next_piece_.store(0, std::memory_order_relaxed);
}

int64_t DecodeJob::chunks_of(int64_t row) const { return (context_lens_[row] + kChunkTokens - 1) / kChunkTokens; }

Partial DecodeJob::partial_at(float* memory) const {
  float* maxima = memory + shape_.group * shape_.padded_dim;
  return {memory, maxima, maxima + shape_.group};
}

bool DecodeJob::take(Range* range, Piece* piece) {
  const int64_t pieces = first_piece_.back();
  if (range->next == range->end) {
    range->next = next_piece_.fetch_add(range_pieces_, std::memory_order_relaxed);
    range->end = std::min(range->next + range_pieces_, pieces);
    if (range->next >= pieces) {
      range->next = range->end;
      return false;
    }
  }
  const int64_t index = range->next++;
  const int64_t row = std::upper_bound(first_piece_.begin(), first_piece_.end(), index) - first_piece_.begin() - 1;
  // The heads of a page are neighbours in memory, the pages of a head are not.
  const int64_t heads = arguments_.keys.heads;
  const int64_t chunk = (index - first_piece_[row]) / heads;
  const int64_t head = (index - first_piece_[row]) % heads;
  const auto first_token = static_cast<int32_t>(chunk * kChunkTokens);
  piece->row = row;
  piece->head = head;
  piece->chunk = chunk;
  piece->segment = Segment{arguments_.keys.at(0, head, 0),
                           arguments_.values.at(0, head, 0),
                           arguments_.keys.page_bytes,
                           arguments_.values.page_bytes,
                           page_ids_.data() + first_page_[row],
                           static_cast<int32_t>(arguments_.keys.page_tokens),
                           first_token,
                           std::min(first_token + kChunkTokens, context_lens_[row]),
                           nullptr,
                           prefetch_};
  return true;
}

void DecodeJob::merge(const Piece& piece, Partial first, int64_t chunks) {
  const int64_t query_head = piece.head * shape_.group;
  float* lse = arguments_.lse ? arguments_.lse + piece.row * arguments_.lse_row_stride + query_head : nullptr;
  kernels_->finish(first, static_cast<int32_t>(chunks), arguments_.keys.heads * partial_floats_, shape_,
                   arguments_.out.at(piece.row, query_head), arguments_.out.dtype, arguments_.out.head_bytes, lse);
}

void DecodeJob::attend(const Piece& piece, float* scratch) {
  constexpr float kLog2E = 1.44269504088896341f;
  const int64_t chunks = chunks_of(piece.row);
  const RowsView& query = arguments_.query;
  float* query_rows = scratch + partial_floats_;
  float* scores = query_rows + shape_.group * shape_.padded_dim;
  float* first = partials_ + (first_piece_[piece.row] + piece.head) * partial_floats_;
  // A sequence of one chunk needs no memory of its own: its partial result stays in this core's cache.
  float* own = chunks == 1 ? scratch : first + piece.chunk * arguments_.keys.heads * partial_floats_;

  kernels_->load_query(query.at(piece.row, piece.head * shape_.group), query.dtype, query.head_bytes,
                       arguments_.scale * kLog2E, shape_, query_rows);
  kernels_->attend(piece.segment, arguments_.keys.dtype, shape_, query_rows, scores, partial_at(own));
  if (chunks == 1) return merge(piece, partial_at(own), 1);
  std::atomic<int32_t>& left = chunks_left_[piece.row * arguments_.keys.heads + piece.head];
  if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) merge(piece, partial_at(first), chunks);
}

bool DecodeJob::run(int worker) {
  float* scratch = scratch_ + worker * scratch_floats_;
  Piece pieces[2];
  int64_t done = 0;
  int current = 0;
  Range range;
  bool more = take(&range, &pieces[current]);
  while (more) {
    // The next piece is taken before this one is worked on, so that its first rows can be on their way by the end.
    const int next = 1 - current;
    more = take(&range, &pieces[next]);
    pieces[current].segment.next = more ? &pieces[next].segment : nullptr;
    attend(pieces[current], scratch);
    current = next;
    ++done;
  }
  return done > 0 && pieces_done_.fetch_add(done, std::memory_order_acq_rel) + done == first_piece_.back();
}

}  // namespace apex
