#include "paging.h"

#include <algorithm>
#include <cstring>

namespace apex {

namespace {

void copy_elements(const char* from, Dtype from_dtype, char* to, Dtype to_dtype, int64_t count,
                   const Kernels& kernels) {
  if (from_dtype == to_dtype) {
    std::memcpy(to, from, count * (from_dtype == Dtype::kFloat32 ? 4 : 2));
  } else {
    kernels.convert(from, from_dtype, to, to_dtype, count);
  }
}

}  // namespace

void append_rows(const RowsView& rows, const PagesView& pages, const int32_t* page_ids, const int32_t* offsets,
                 const Kernels& kernels) {
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t head = 0; head < rows.heads; ++head) {
      copy_elements(rows.at(row, head), rows.dtype, pages.at(page_ids[row], head, offsets[row]), pages.dtype,
                    rows.head_dim, kernels);
    }
  }
}

void copy_tokens(const SequenceView& from, const SequenceView& to, int64_t tokens, const Kernels& kernels) {
  for (int64_t done = 0; done < tokens;) {
    const int64_t from_token = from.first_token + done;
    const int64_t to_token = to.first_token + done;
    const int64_t from_offset = from_token % from.pages.page_tokens;
    const int64_t to_offset = to_token % to.pages.page_tokens;
    // The longest run within one page on either side: 4 KiB per head for 16 tokens of head_dim 128 in 16 bit.
    const int64_t run =
        std::min({tokens - done, from.pages.page_tokens - from_offset, to.pages.page_tokens - to_offset});
    const int64_t from_page = from.page_ids[from_token / from.pages.page_tokens];
    const int64_t to_page = to.page_ids[to_token / to.pages.page_tokens];
    for (int64_t head = 0; head < from.pages.heads; ++head) {
      copy_elements(from.pages.at(from_page, head, from_offset), from.pages.dtype,
                    to.pages.at(to_page, head, to_offset), to.pages.dtype, run * from.pages.head_dim, kernels);
    }
    done += run;
  }
}

}  // namespace apex
