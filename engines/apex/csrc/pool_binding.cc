#include "pool_binding.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <thread>

#include "arguments.h"
#include "dispatch.h"
#include "errors.h"
#include "monotonic.h"

namespace nb = nanobind;

namespace apex {

namespace {

constexpr int64_t kMaxThreads = 1024;
constexpr int64_t kMaxSpinUs = 1'000'000;
constexpr int64_t kMaxRepeats = 1'000'000;

int checked_threads(int64_t threads) {
  if (threads < 1 || threads > kMaxThreads) {
    raise_value_error("threads: expected 1.." + text(kMaxThreads) + ", got " + text(threads));
  }
  return static_cast<int>(threads);
}

int checked_spin(int64_t spin_us) {
  if (spin_us < 0 || spin_us > kMaxSpinUs) {
    raise_value_error("spin_us: expected 0.." + text(kMaxSpinUs) + ", got " + text(spin_us));
  }
  return static_cast<int>(spin_us);
}

}  // namespace

std::vector<int> checked_cores(const std::vector<int64_t>& cores, int64_t threads) {
  if (static_cast<int64_t>(cores.size()) != threads) {
    raise_value_error("cores: expected one per thread (" + text(threads) + "), got " +
                      text(static_cast<int64_t>(cores.size())));
  }
  std::vector<int> checked;
  for (const int64_t core : cores) {
    if (core < 0 || core > INT_MAX) raise_value_error("cores: " + text(core) + " is no core number");
    const int number = static_cast<int>(core);
    if (std::find(checked.begin(), checked.end(), number) != checked.end()) {
      raise_value_error("cores: " + text(core) + " is named twice; two spinning threads on one core stall each other");
    }
    checked.push_back(number);
  }
  return checked;
}

PoolBinding::PoolBinding(int64_t threads, const std::optional<std::vector<int64_t>>& cores, int64_t spin_us)
    : pool_(checked_threads(threads), cores ? checked_cores(*cores, threads) : std::vector<int>(),
            checked_spin(spin_us)) {}

void PoolBinding::check_usable() const {
  if (pool_.closed()) throw PoolError("the pool is closed");
  if (pool_.forked()) throw PoolError("the pool belongs to the parent process; create one after the fork");
}

uint64_t PoolBinding::check_ticket(int64_t ticket) const {
  if (ticket < 0 || static_cast<uint64_t>(ticket) >= pool_.submitted()) {
    raise_value_error("ticket: " + text(ticket) + " was never given out by this pool");
  }
  return static_cast<uint64_t>(ticket);
}

uint64_t PoolBinding::submit(nb::handle query, nb::handle key_pages, nb::handle value_pages, nb::handle page_table,
                             nb::handle context_lens, nb::handle out, float scale, nb::handle lse) {
  check_usable();
  const DecodeArguments arguments =
      decode_arguments(query, key_pages, value_pages, page_table, context_lens, out, scale, lse);
  while (!pool_.has_room()) {
    {
      const nb::gil_scoped_release unlocked;
      pool_.wait_for_room();
    }
    check_usable();  // another Python thread may have closed it, or taken the room
  }
  // The slot's last job is over, so what it kept may go. The new references come first: dropping an old one can run
  // arbitrary Python code.
  Kept kept = {{nb::borrow(query), nb::borrow(key_pages), nb::borrow(value_pages), nb::borrow(out), nb::borrow(lse)}};
  std::swap(kept_[pool_.submitted() % Pool::kSlots], kept);
  return pool_.submit(arguments, active_kernels());
}

void PoolBinding::release(uint64_t ticket) {
  // Unless the slot serves a newer job already.
  if (pool_.submitted() - ticket > Pool::kSlots) return;
  const Kept dropped = std::move(kept_[ticket % Pool::kSlots]);
}

bool PoolBinding::done(int64_t ticket) {
  const uint64_t checked = check_ticket(ticket);
  if (!pool_.done(checked)) return false;
  release(checked);
  return true;
}

void PoolBinding::wait(int64_t ticket) {
  const uint64_t checked = check_ticket(ticket);
  if (!pool_.done(checked)) {
    if (pool_.forked()) throw PoolError("the pool belongs to the parent process; its jobs cannot be waited for here");
    const nb::gil_scoped_release unlocked;
    pool_.wait(checked);
  }
  release(checked);
}

std::pair<double, double> PoolBinding::span(int64_t ticket) {
  const uint64_t checked = check_ticket(ticket);
  if (!pool_.done(checked)) raise_value_error("ticket: " + text(ticket) + " is not done yet");
  const Pool::Span span = pool_.span(checked);
  if (span.ended_ns == 0) raise_value_error("ticket: the times of " + text(ticket) + " are no longer kept");
  return {static_cast<double>(span.began_ns) * 1e-9, static_cast<double>(span.ended_ns) * 1e-9};
}

std::vector<std::array<double, 3>> PoolBinding::time_dispatch(nb::handle query, nb::handle key_pages,
                                                              nb::handle value_pages, nb::handle page_table,
                                                              nb::handle context_lens, nb::handle out, float scale,
                                                              int64_t repeats, int64_t pause_us) {
  check_usable();
  if (repeats < 1 || repeats > kMaxRepeats) raise_value_error("repeats: expected 1.." + text(kMaxRepeats));
  if (pause_us < 0 || pause_us > kMaxSpinUs) raise_value_error("pause_us: expected 0.." + text(kMaxSpinUs));
  const DecodeArguments arguments =
      decode_arguments(query, key_pages, value_pages, page_table, context_lens, out, scale, nb::none());
  std::vector<std::array<double, 3>> times;
  times.reserve(repeats);
  // The interpreter lock stays here: nobody else may submit in between, and the arguments live as long as the call.
  for (int64_t i = 0; i < repeats; ++i) {
    if (pause_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(pause_us));
    if (!pool_.has_room()) pool_.wait_for_room();
    const int64_t called_ns = monotonic_ns();
    const uint64_t ticket = pool_.submit(arguments, active_kernels());
    const int64_t submitted_ns = monotonic_ns();
    pool_.wait(ticket);
    const int64_t returned_ns = monotonic_ns();
    const Pool::Span span = pool_.span(ticket);
    const auto seconds = [](int64_t from_ns, int64_t to_ns) { return static_cast<double>(to_ns - from_ns) * 1e-9; };
    times.push_back(
        {seconds(called_ns, submitted_ns), seconds(called_ns, span.began_ns), seconds(span.ended_ns, returned_ns)});
  }
  return times;
}

void PoolBinding::close() {
  // Stopped under the interpreter lock, so that no other Python thread can be half-way through submit().
  pool_.stop();
  {
    const nb::gil_scoped_release unlocked;
    pool_.join();
  }
  for (Kept& kept : kept_)
    const Kept dropped = std::move(kept);
}

void define_pool(nb::module_& m) {
  using nb::arg;
  nb::exception<PoolError>(m, "PoolError", PyExc_RuntimeError);
  nb::class_<PoolBinding>(m, "Pool", "Pinned threads for decode attention; idle ones spin briefly, then sleep.")
      .def(nb::init<int64_t, const std::optional<std::vector<int64_t>>&, int64_t>(), arg("threads"),
           arg("cores") = nb::none(), arg("spin_us") = 50)
      .def("submit_decode_attention", &PoolBinding::submit, arg("query"), arg("key_pages"), arg("value_pages"),
           arg("page_table"), arg("context_lens"), arg("out"), arg("scale"), arg("lse") = nb::none(),
           "Starts decode attention and returns a ticket for it.")
      .def("done", &PoolBinding::done, arg("ticket"), "Whether the job has ended; never blocks.")
      .def("wait", &PoolBinding::wait, arg("ticket"), "Returns when the job has ended.")
      .def("span", &PoolBinding::span, arg("ticket"), "When the job began and ended, on time.monotonic()'s clock.")
      .def("time_dispatch", &PoolBinding::time_dispatch, arg("query"), arg("key_pages"), arg("value_pages"),
           arg("page_table"), arg("context_lens"), arg("out"), arg("scale"), arg("repeats"), arg("pause_us") = 0,
           "Seconds per job: submit(), until a thread begins, and from the last thread's end to wait()'s return.")
      .def("close", &PoolBinding::close, "Finishes what is in flight and ends the threads.")
      .def("__enter__", [](nb::handle self) { return nb::borrow(self); })
      .def(
          "__exit__", [](PoolBinding& self, nb::handle, nb::handle, nb::handle) { self.close(); }, arg("type").none(),
          arg("value").none(), arg("traceback").none())
      .def_prop_ro("threads", &PoolBinding::threads)
      .def_prop_ro("busy_s", &PoolBinding::busy_s, "Seconds all threads together have spent on jobs.")
      .def_prop_ro("closed", &PoolBinding::closed);
}

}  // namespace apex
