// Checked views of the caller's memory, with strides in bytes. They own nothing; whoever makes them keeps the memory.
#pragma once

#include <cstdint>

#include "kernel.h"

namespace apex {

// [rows, heads, head_dim], the last dimension contiguous.
struct RowsView {
  char* data = nullptr;
  Dtype dtype = Dtype::kFloat32;
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t row_bytes = 0;
  int64_t head_bytes = 0;

  char* at(int64_t row, int64_t head) const { return data + row * row_bytes + head * head_bytes; }
};

// [num_pages, kv_heads, page_tokens, head_dim], the last two dimensions contiguous. One head's part of a page is one
// run of memory, which is what the hardware prefetchers, the TLB and memcpy want.
struct PagesView {
  char* data = nullptr;
  Dtype dtype = Dtype::kFloat32;
  int64_t pages = 0;
  int64_t heads = 0;
  int64_t page_tokens = 0;
  int64_t head_dim = 0;
  int64_t page_bytes = 0;
  int64_t head_bytes = 0;

  char* at(int64_t page, int64_t head, int64_t token) const {
    return data + page * page_bytes + head * head_bytes + token * token_bytes();
  }
  int64_t token_bytes() const { return head_dim * (dtype == Dtype::kFloat32 ? 4 : 2); }
};

// int32 [count] or one row of [rows, columns].
struct IdsView {
  const int32_t* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t row_stride = 0;

  const int32_t* row(int64_t index) const { return data + index * row_stride; }
};

}  // namespace apex
