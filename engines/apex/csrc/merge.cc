#include "merge.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace apex {

namespace {

struct Shares {
  float a;
  float b;
  float lse;
};

Shares shares_of(float lse_a, float lse_b) {
  constexpr float kEmpty = -std::numeric_limits<float>::infinity();
  const double largest = std::max(lse_a, lse_b);
  if (largest == kEmpty) return {0.0f, 0.0f, kEmpty};
  const double a = std::exp(lse_a - largest);
  const double b = std::exp(lse_b - largest);
  return {static_cast<float>(a / (a + b)), static_cast<float>(b / (a + b)),
          static_cast<float>(largest + std::log(a + b))};
}

}  // namespace

void merge_attentions(const AttentionView& a, const AttentionView& b, const AttentionView& out,
                      const Kernels& kernels) {
  for (int64_t row = 0; row < out.rows.rows; ++row) {
    for (int64_t head = 0; head < out.rows.heads; ++head) {
      const Shares shares = shares_of(*a.lse_at(row, head), *b.lse_at(row, head));
      kernels.blend(a.rows.at(row, head), shares.a, b.rows.at(row, head), shares.b, out.rows.at(row, head),
                    out.rows.dtype, out.rows.head_dim);
      if (out.lse) *out.lse_at(row, head) = shares.lse;
    }
  }
}

}  // namespace apex
