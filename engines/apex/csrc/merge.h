// The exact merge of two attentions over disjoint parts of one context, from their log-sum-exps.
#pragma once

#include "kernel.h"
#include "paged.h"

namespace apex {

// One attention: rows [rows, q_heads, head_dim] and, for each row and head, the natural logarithm of the sum of
// exponentials of its scores; -infinity stands for an empty part.
struct AttentionView {
  RowsView rows;
  float* lse = nullptr;  // may be null in the result
  int64_t lse_row_stride = 0;

  float* lse_at(int64_t row, int64_t head) const { return lse + row * lse_row_stride + head; }
};

// `out` may be `a` or `b`. All three have the same shape and dtype.
void merge_attentions(const AttentionView& a, const AttentionView& b, const AttentionView& out, const Kernels& kernels);

}  // namespace apex
