// The Python module engines.apex._cpu: arguments in, checks, one call below, exceptions out.
//
// engines/apex/_cpu.pyi is its typed face; keep both in step.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "arguments.h"
#include "decode.h"
#include "dispatch.h"
#include "errors.h"
#include "merge.h"
#include "paging.h"
#include "pool_binding.h"
#include "stream.h"

namespace nb = nanobind;

namespace apex {

namespace {

// A job of the calling thread: its memory is kept from call to call.
DecodeJob& own_job() {
  static thread_local DecodeJob job;
  return job;
}

void decode_attention(nb::handle query, nb::handle key_pages, nb::handle value_pages, nb::handle page_table,
                      nb::handle context_lens, nb::handle out, float scale, PoolBinding* pool, nb::handle lse) {
  if (pool) {
    const uint64_t ticket = pool->submit(query, key_pages, value_pages, page_table, context_lens, out, scale, lse);
    return pool->wait(ticket);
  }
  const DecodeArguments arguments =
      decode_arguments(query, key_pages, value_pages, page_table, context_lens, out, scale, lse);
  const nb::gil_scoped_release unlocked;
  DecodeJob& job = own_job();
  job.prepare(arguments, active_kernels(), 1);
  job.run(0);
}

void check_slots(const IdsView& page_ids, const IdsView& offsets, const PagesView& pages, int64_t rows) {
  check_equal(page_ids.columns, rows, "page_ids", "key", "rows");
  check_equal(offsets.columns, rows, "offsets", "key", "rows");
  check_page_ids(page_ids.data, rows, pages.pages, "page_ids", 0);
  for (int64_t row = 0; row < rows; ++row) {
    if (offsets.data[row] >= 0 && offsets.data[row] < pages.page_tokens) continue;
    raise_value_error("offsets: " + text(offsets.data[row]) + " in row " + text(row) + " is outside a page of " +
                      text(pages.page_tokens) + " tokens");
  }
}

void append_kv(nb::handle key, nb::handle value, nb::handle key_pages, nb::handle value_pages, nb::handle page_ids,
               nb::handle offsets) {
  const RowsView keys = rows_view(key, "key", "[rows, kv_heads, head_dim]", Access::kRead);
  const RowsView values = rows_view(value, "value", "[rows, kv_heads, head_dim]", Access::kRead);
  const PagesView key_store = pages_view(key_pages, "key_pages", Access::kWrite);
  const PagesView value_store = pages_view(value_pages, "value_pages", Access::kWrite);
  check_equal(values.rows, keys.rows, "value", "key", "rows");
  check_equal(keys.heads, key_store.heads, "key", "key_pages", "heads");
  check_equal(values.heads, value_store.heads, "value", "value_pages", "heads");
  check_equal(keys.head_dim, key_store.head_dim, "key", "key_pages", "head_dim");
  check_equal(values.head_dim, value_store.head_dim, "value", "value_pages", "head_dim");
  check_equal(value_store.pages, key_store.pages, "value_pages", "key_pages", "pages");
  check_equal(value_store.page_tokens, key_store.page_tokens, "value_pages", "key_pages", "page_tokens");
  const IdsView ids = ids_view(page_ids, "page_ids", 1);
  const IdsView slots = ids_view(offsets, "offsets", 1);
  check_slots(ids, slots, key_store, keys.rows);
  const nb::gil_scoped_release unlocked;
  append_rows(keys, key_store, ids.data, slots.data, active_kernels());
  append_rows(values, value_store, ids.data, slots.data, active_kernels());
}

void copy_between(nb::handle src_pages, nb::handle src_table, nb::handle dst_pages, nb::handle dst_table,
                  int64_t tokens, int64_t src_start, int64_t dst_start) {
  if (tokens < 0) raise_value_error("tokens: must not be negative");
  if (src_start < 0 || dst_start < 0) raise_value_error("src_start and dst_start: must not be negative");
  constexpr int64_t kLimit = int64_t{1} << 40;
  if (std::max({tokens, src_start, dst_start}) > kLimit) raise_value_error("tokens: out of range");
  const SequenceView from =
      sequence_view(src_pages, src_table, "src_pages", "src_table", src_start, tokens, Access::kRead);
  const SequenceView to =
      sequence_view(dst_pages, dst_table, "dst_pages", "dst_table", dst_start, tokens, Access::kWrite);
  check_equal(to.pages.heads, from.pages.heads, "dst_pages", "src_pages", "kv_heads");
  check_equal(to.pages.head_dim, from.pages.head_dim, "dst_pages", "src_pages", "head_dim");
  const nb::gil_scoped_release unlocked;
  copy_tokens(from, to, tokens, active_kernels());
}

AttentionView attention_view(nb::handle out, nb::handle lse, const char* out_name, const char* lse_name,
                             Access access) {
  AttentionView view;
  view.rows = rows_view(out, out_name, "[rows, q_heads, head_dim]", access);
  if (!lse.is_none()) {
    const LseView lse_rows = lse_view(lse, lse_name, view.rows.rows, view.rows.heads, access);
    view.lse = lse_rows.data;
    view.lse_row_stride = lse_rows.row_stride;
  }
  return view;
}

void check_like(const RowsView& view, const RowsView& first, const char* name) {
  check_equal(view.rows, first.rows, name, "out_a", "rows");
  check_equal(view.heads, first.heads, name, "out_a", "heads");
  check_equal(view.head_dim, first.head_dim, name, "out_a", "head_dim");
  if (view.dtype != first.dtype) raise_type_error(std::string(name) + " and out_a differ in dtype");
}

void merge_partials(nb::handle out_a, nb::handle lse_a, nb::handle out_b, nb::handle lse_b, nb::handle out,
                    nb::handle lse_out) {
  if (lse_a.is_none() || lse_b.is_none()) raise_type_error("lse_a and lse_b: expected float32 tensors, got None");
  const AttentionView a = attention_view(out_a, lse_a, "out_a", "lse_a", Access::kRead);
  const AttentionView b = attention_view(out_b, lse_b, "out_b", "lse_b", Access::kRead);
  const AttentionView merged = attention_view(out, lse_out, "out", "lse_out", Access::kWrite);
  check_like(b.rows, a.rows, "out_b");
  check_like(merged.rows, a.rows, "out");
  const nb::gil_scoped_release unlocked;
  merge_attentions(a, b, merged, active_kernels());
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Kernels* kernels : available_kernels())
    names.emplace_back(kernels->isa);
  return names;
}

void set_isa(const std::string& name) {
  if (select_kernels(name)) return;
  std::string known;
  for (const std::string& isa : available_isas())
    known += (known.empty() ? "" : ", ") + isa;
  raise_value_error("isa: this machine runs " + known + ", not '" + name + "'");
}

constexpr const char* kPrefetchNames[] = {"auto", "always", "never"};

std::string get_prefetch() { return kPrefetchNames[static_cast<int>(active_prefetch())]; }

void set_prefetch(const std::string& mode) {
  for (int i = 0; i < 3; ++i) {
    if (mode == kPrefetchNames[i]) return select_prefetch(static_cast<Prefetch>(i));
  }
  raise_value_error("mode: expected auto, always or never, got '" + mode + "'");
}

constexpr const char* kReadPatterns[] = {"forward", "ahead", "four_parts"};

ReadPattern read_pattern(const std::string& name) {
  for (int i = 0; i < 3; ++i) {
    if (name == kReadPatterns[i]) return static_cast<ReadPattern>(i);
  }
  raise_value_error("pattern: expected forward, ahead or four_parts, got '" + name + "'");
}

std::pair<double, int64_t> time_reading(nb::handle memory, const std::string& pattern,
                                        const std::vector<int64_t>& cores) {
  const Tensor tensor = describe(memory, "memory", Access::kRead);
  if (tensor.rank != 1 || tensor.strides[0] != 1) raise_value_error("memory: expected one contiguous dimension");
  const std::vector<int> checked = checked_cores(cores, static_cast<int64_t>(cores.size()));
  if (checked.empty()) raise_value_error("cores: expected at least one");
  const ReadPattern how = read_pattern(pattern);
  const nb::gil_scoped_release unlocked;
  const ReadTime time =
      read_stream(tensor.data, tensor.shape[0] * tensor.element_bytes(), how, checked, active_kernels());
  return {time.seconds, time.bytes};
}

}  // namespace

void define_module(nb::module_& m) {
  using nb::arg;
  m.doc() = "Decode attention of the CPU over paged K and V, and what moves tokens between pages.";
  m.attr("CHUNK_TOKENS") = kChunkTokens;
  m.def("available_isas", &available_isas, "Kernel sets this machine can run, best first.");
  m.def("get_isa", [] { return std::string(active_kernels().isa); }, "The kernel set in use.");
  m.def("set_isa", &set_isa, arg("name"), "Selects a kernel set for calls that start from now on.");
  m.def("get_prefetch", &get_prefetch, "How the next rows are prefetched: auto, always or never.");
  m.def("set_prefetch", &set_prefetch, arg("mode"), "Selects it for calls that start from now on.");

  define_pool(m);
  m.def("decode_attention", &decode_attention, arg("query"), arg("key_pages"), arg("value_pages"), arg("page_table"),
        arg("context_lens"), arg("out"), arg("scale"), arg("pool").none() = nb::none(), arg("lse") = nb::none(),
        "Attention of one query token per row over its paged context.");
  m.def("append_kv", &append_kv, arg("key"), arg("value"), arg("key_pages"), arg("value_pages"), arg("page_ids"),
        arg("offsets"), "Writes one token per row into its page.");
  m.def("copy_tokens", &copy_between, arg("src_pages"), arg("src_table").none(), arg("dst_pages"),
        arg("dst_table").none(), arg("tokens"), arg("src_start") = 0, arg("dst_start") = 0,
        "Copies tokens of one sequence between stores.");
  m.def("merge_partials", &merge_partials, arg("out_a"), arg("lse_a"), arg("out_b"), arg("lse_b"), arg("out"),
        arg("lse_out") = nb::none(), "Merges attentions over two disjoint parts of a context.");
  m.def("time_reading", &time_reading, arg("memory"), arg("pattern"), arg("cores"),
        "Seconds that one pinned thread per core takes to read its share of the memory, and the bytes read.");
}

}  // namespace apex

NB_MODULE(_cpu, m) { apex::define_module(m); }
