// The pool as Python sees it: it keeps the tensors of a job alive until the job is done.
#pragma once

#include <nanobind/nanobind.h>

#include <array>
#include <optional>
#include <vector>

#include "pool.h"

namespace apex {

class PoolBinding {
 public:
  PoolBinding(int64_t threads, const std::optional<std::vector<int64_t>>& cores, int64_t spin_us);
  ~PoolBinding() { close(); }
  PoolBinding(const PoolBinding&) = delete;
  PoolBinding& operator=(const PoolBinding&) = delete;

  uint64_t submit(nanobind::handle query, nanobind::handle key_pages, nanobind::handle value_pages,
                  nanobind::handle page_table, nanobind::handle context_lens, nanobind::handle out, float scale,
                  nanobind::handle lse);
  bool done(int64_t ticket);
  void wait(int64_t ticket);
  std::pair<double, double> span(int64_t ticket);
  // Runs one job `repeats` times, `pause_us` after the one before. Per job, in seconds: the call of submit(), from its
  // start until the first thread begins, and from the last thread's end until wait() returns.
  std::vector<std::array<double, 3>> time_dispatch(nanobind::handle query, nanobind::handle key_pages,
                                                   nanobind::handle value_pages, nanobind::handle page_table,
                                                   nanobind::handle context_lens, nanobind::handle out, float scale,
                                                   int64_t repeats, int64_t pause_us);
  double busy_s() const { return static_cast<double>(pool_.busy_ns()) * 1e-9; }
  int threads() const { return pool_.threads(); }
  bool closed() const { return pool_.closed(); }
  void close();

 private:
  // Of the tensors the threads read and write; tables are copied.
  struct Kept {
    nanobind::object tensors[5];
  };

  void check_usable() const;
  uint64_t check_ticket(int64_t ticket) const;
  void release(uint64_t ticket);

  Pool pool_;
  Kept kept_[Pool::kSlots];
};

// Raises unless every core has a number, and a different one, and there are `threads` of them.
std::vector<int> checked_cores(const std::vector<int64_t>& cores, int64_t threads);

void define_pool(nanobind::module_& m);

}  // namespace apex
