#include "arguments.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "errors.h"

namespace nb = nanobind;

namespace apex {

namespace {

void check_rank(const Tensor& tensor, int rank, const char* name, const char* layout) {
  if (tensor.rank == rank) return;
  raise_value_error(std::string(name) + ": expected " + text(rank) + " dimensions " + layout + ", got " +
                    text(tensor.rank));
}

void check_float(const Tensor& tensor, const char* name) {
  if (tensor.dtype == Dtype::kInt32)
    raise_type_error(std::string(name) + ": expected float32, float16 or bfloat16, got int32");
}

void check_int(const Tensor& tensor, const char* name) {
  if (tensor.dtype != Dtype::kInt32) raise_type_error(std::string(name) + ": expected int32, got a float dtype");
}

// The stride of a dimension with fewer than two entries is never used and may be anything.
void check_stride(const Tensor& tensor, int dimension, int64_t stride, const char* name) {
  if (tensor.shape[dimension] < 2 || tensor.strides[dimension] == stride) return;
  raise_value_error(std::string(name) + ": dimension " + text(dimension) + " must be contiguous (stride " +
                    text(stride) + "), got stride " + text(tensor.strides[dimension]) + "; call .contiguous() first");
}

// The kernels count heads, columns and tokens in 32 bits; within these limits no product of them overflows.
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxHeads = 65536;
constexpr int64_t kMaxPageTokens = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 30;

void check_limit(int64_t size, int64_t limit, const char* name, const char* dimension) {
  if (size >= 1 && size <= limit) return;
  raise_value_error(std::string(name) + ": " + dimension + " is " + text(size) + ", outside 1.." + text(limit));
}

// [kv_heads, tokens, head_dim] as a store of one page.
PagesView one_page_view(nb::handle object, const char* name, Access access) {
  const Tensor tensor = describe(object, name, access);
  check_float(tensor, name);
  check_rank(tensor, 3, name, "[kv_heads, tokens, head_dim] (pages need a table)");
  check_stride(tensor, 2, 1, name);
  check_stride(tensor, 1, tensor.shape[2], name);
  check_limit(tensor.shape[0], kMaxHeads, name, "kv_heads");
  check_limit(tensor.shape[1], kMaxPageTokens, name, "tokens");
  check_limit(tensor.shape[2], kMaxHeadDim, name, "head_dim");
  return {tensor.data, tensor.dtype, 1, tensor.shape[0], tensor.shape[1], tensor.shape[2], 0, tensor.stride_bytes(0)};
}

}  // namespace

RowsView rows_view(nb::handle object, const char* name, const char* layout, Access access) {
  const Tensor tensor = describe(object, name, access);
  check_float(tensor, name);
  check_rank(tensor, 3, name, layout);
  check_stride(tensor, 2, 1, name);
  check_limit(tensor.shape[1], kMaxHeads, name, "the number of heads");
  check_limit(tensor.shape[2], kMaxHeadDim, name, "head_dim");
  return {tensor.data,     tensor.dtype,           tensor.shape[0],       tensor.shape[1],
          tensor.shape[2], tensor.stride_bytes(0), tensor.stride_bytes(1)};
}

PagesView pages_view(nb::handle object, const char* name, Access access) {
  const Tensor tensor = describe(object, name, access);
  check_float(tensor, name);
  check_rank(tensor, 4, name, "[num_pages, kv_heads, page_tokens, head_dim]");
  check_stride(tensor, 3, 1, name);
  check_stride(tensor, 2, tensor.shape[3], name);
  check_limit(tensor.shape[1], kMaxHeads, name, "kv_heads");
  check_limit(tensor.shape[2], kMaxPageTokens, name, "page_tokens");
  check_limit(tensor.shape[3], kMaxHeadDim, name, "head_dim");
  return {tensor.data,     tensor.dtype,    tensor.shape[0],        tensor.shape[1],
          tensor.shape[2], tensor.shape[3], tensor.stride_bytes(0), tensor.stride_bytes(1)};
}

SequenceView sequence_view(nb::handle pages, nb::handle table, const char* pages_name, const char* table_name,
                           int64_t first_token, int64_t tokens, Access access) {
  static constexpr int32_t kOnePage[1] = {0};
  SequenceView view{};
  view.first_token = first_token;
  IdsView ids{kOnePage, 1, 1, 0};
  if (table.is_none()) {
    view.pages = one_page_view(pages, pages_name, access);
  } else {
    view.pages = pages_view(pages, pages_name, access);
    ids = ids_view(table, table_name, 1);
  }
  view.page_ids = ids.data;
  const int64_t end = first_token + tokens;
  if (end > ids.columns * view.pages.page_tokens) {
    raise_value_error(std::string(table_name) + ": tokens " + text(first_token) + ".." + text(end) +
                      " do not fit into its " + text(ids.columns) + " pages of " + text(view.pages.page_tokens) +
                      " tokens");
  }
  check_page_ids(ids.data, (end + view.pages.page_tokens - 1) / view.pages.page_tokens, view.pages.pages, table_name,
                 0);
  return view;
}

IdsView ids_view(nb::handle object, const char* name, int rank) {
  const Tensor tensor = describe(object, name, Access::kRead);
  check_int(tensor, name);
  check_rank(tensor, rank, name, rank == 2 ? "[rows, max_pages]" : "[entries]");
  check_stride(tensor, rank - 1, 1, name);
  const auto* ids = reinterpret_cast<const int32_t*>(tensor.data);
  if (rank == 1) return {ids, 1, tensor.shape[0], 0};
  return {ids, tensor.shape[0], tensor.shape[1], tensor.strides[0]};
}

LseView lse_view(nb::handle object, const char* name, int64_t rows, int64_t heads, Access access) {
  const Tensor tensor = describe(object, name, access);
  if (tensor.dtype != Dtype::kFloat32) raise_type_error(std::string(name) + ": expected float32");
  check_rank(tensor, 2, name, "[rows, q_heads]");
  check_stride(tensor, 1, 1, name);
  check_equal(tensor.shape[0], rows, name, "query", "rows");
  check_equal(tensor.shape[1], heads, name, "query", "heads");
  return {reinterpret_cast<float*>(tensor.data), tensor.strides[0]};
}

void check_page_ids(const int32_t* ids, int64_t count, int64_t pages, const char* name, int64_t row) {
  for (int64_t i = 0; i < count; ++i) {
    if (ids[i] >= 0 && ids[i] < pages) continue;
    raise_value_error(std::string(name) + ": page id " + text(ids[i]) + " in row " + text(row) + ", column " + text(i) +
                      " is outside the store of " + text(pages) + " pages");
  }
}

void check_equal(int64_t a, int64_t b, const char* name_a, const char* name_b, const char* what) {
  if (a == b) return;
  raise_value_error(std::string(name_a) + " and " + name_b + " differ in " + what + ": " + text(a) + " and " + text(b));
}

namespace {

void check_shapes(const DecodeArguments& arguments) {
  const RowsView& query = arguments.query;
  const PagesView& keys = arguments.keys;
  const PagesView& values = arguments.values;
  check_equal(arguments.out.rows, query.rows, "out", "query", "rows");
  check_equal(arguments.out.heads, query.heads, "out", "query", "heads");
  check_equal(arguments.out.head_dim, query.head_dim, "out", "query", "head_dim");
  check_equal(keys.head_dim, query.head_dim, "key_pages", "query", "head_dim");
  check_equal(values.head_dim, keys.head_dim, "value_pages", "key_pages", "head_dim");
  check_equal(values.heads, keys.heads, "value_pages", "key_pages", "heads");
  check_equal(values.pages, keys.pages, "value_pages", "key_pages", "pages");
  check_equal(values.page_tokens, keys.page_tokens, "value_pages", "key_pages", "page_tokens");
  if (values.dtype != keys.dtype) raise_type_error("value_pages and key_pages differ in dtype");
  if (query.heads % keys.heads != 0) {
    raise_value_error("query: " + text(query.heads) + " heads are no multiple of the " + text(keys.heads) +
                      " K/V heads of key_pages");
  }
}

void check_tables(const DecodeArguments& arguments, const IdsView& lens) {
  const int64_t rows = arguments.query.rows;
  const int64_t page_tokens = arguments.keys.page_tokens;
  const int64_t longest = std::min(arguments.page_table.columns * page_tokens, kMaxContext);
  check_equal(arguments.page_table.rows, rows, "page_table", "query", "rows");
  check_equal(lens.columns, rows, "context_lens", "query", "rows");
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t context = lens.data[row];
    if (context < 1 || context > longest) {
      raise_value_error("context_lens: " + text(context) + " in row " + text(row) + " is outside 1.." + text(longest) +
                        " (max_pages * page_tokens)");
    }
    check_page_ids(arguments.page_table.row(row), (context + page_tokens - 1) / page_tokens, arguments.keys.pages,
                   "page_table", row);
  }
}

}  // namespace

DecodeArguments decode_arguments(nb::handle query, nb::handle key_pages, nb::handle value_pages, nb::handle page_table,
                                 nb::handle context_lens, nb::handle out, float scale, nb::handle lse) {
  DecodeArguments arguments;
  arguments.query = rows_view(query, "query", "[rows, q_heads, head_dim]", Access::kRead);
  arguments.out = rows_view(out, "out", "[rows, q_heads, head_dim]", Access::kWrite);
  arguments.keys = pages_view(key_pages, "key_pages", Access::kRead);
  arguments.values = pages_view(value_pages, "value_pages", Access::kRead);
  arguments.page_table = ids_view(page_table, "page_table", 2);
  arguments.scale = scale;
  check_shapes(arguments);
  if (!std::isfinite(scale)) raise_value_error("scale: must be finite");
  const IdsView lens = ids_view(context_lens, "context_lens", 1);
  check_tables(arguments, lens);
  arguments.context_lens = lens.data;
  if (!lse.is_none()) {
    const LseView view = lse_view(lse, "lse", arguments.query.rows, arguments.query.heads, Access::kWrite);
    arguments.lse = view.data;
    arguments.lse_row_stride = view.row_stride;
  }
  return arguments;
}

}  // namespace apex
