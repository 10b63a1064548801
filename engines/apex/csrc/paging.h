// Moves rows of K or V into, out of and between paged stores. Shapes and ids have been checked by the caller.
#pragma once

#include <cstdint>

#include "kernel.h"
#include "paged.h"

namespace apex {

// Writes row i of `rows` [rows, kv_heads, head_dim] to slot offsets[i] of page page_ids[i], converting the dtype.
void append_rows(const RowsView& rows, const PagesView& pages, const int32_t* page_ids, const int32_t* offsets,
                 const Kernels& kernels);

// Where a sequence lies in a store: its pages, and the token of it to begin with.
struct SequenceView {
  PagesView pages;
  const int32_t* page_ids;
  int64_t first_token;
};

// Copies `tokens` tokens of all K/V heads; page sizes and dtypes may differ.
void copy_tokens(const SequenceView& from, const SequenceView& to, int64_t tokens, const Kernels& kernels);

}  // namespace apex
