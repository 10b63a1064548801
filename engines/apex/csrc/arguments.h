// Checks of what Python passes in. Nothing past this file can fail: threads never raise, and never read a page that
// does not exist.
//
// Shapes and memory layouts are errors of value, dtypes and non-tensors errors of type; each message names the
// argument.
#pragma once

#include <nanobind/nanobind.h>

#include "decode.h"
#include "paged.h"
#include "paging.h"
#include "tensor.h"

namespace apex {

// [rows, heads, head_dim] of a float type; `layout` names the dimensions in messages.
RowsView rows_view(nanobind::handle object, const char* name, const char* layout, Access access);

// [num_pages, kv_heads, page_tokens, head_dim] of a float type.
PagesView pages_view(nanobind::handle object, const char* name, Access access);

// A sequence in a store: pages as above with an int32 table, or contiguous [kv_heads, tokens, head_dim] and None.
// Raises unless tokens [first_token, first_token + tokens) have their place in it.
SequenceView sequence_view(nanobind::handle pages, nanobind::handle table, const char* pages_name,
                           const char* table_name, int64_t first_token, int64_t tokens, Access access);

// int32 [rows, columns], or int32 [columns] as one row.
IdsView ids_view(nanobind::handle object, const char* name, int rank);

struct LseView {
  float* data = nullptr;
  int64_t row_stride = 0;

  float* row(int64_t index) const { return data + index * row_stride; }
};

// float32 [rows, heads].
LseView lse_view(nanobind::handle object, const char* name, int64_t rows, int64_t heads, Access access);

// Checks the first `count` ids of a row against a store of `pages` pages.
void check_page_ids(const int32_t* ids, int64_t count, int64_t pages, const char* name, int64_t row);

// Checks that two views agree, and raises "`name_a` and `name_b` differ in `what`: a and b" if not.
void check_equal(int64_t a, int64_t b, const char* name_a, const char* name_b, const char* what);

DecodeArguments decode_arguments(nanobind::handle query, nanobind::handle key_pages, nanobind::handle value_pages,
                                 nanobind::handle page_table, nanobind::handle context_lens, nanobind::handle out,
                                 float scale, nanobind::handle lse);

}  // namespace apex
