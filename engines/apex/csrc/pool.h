// Threads that run decode attention beside the interpreter: own, pinned, and woken in well under a microsecond.
//
// Not OpenMP: which libgomp a process gets depends on import order, its pins are global, and waking its threads costs
// 28-60 us once they have gone to sleep. One layer of attention may take less than that.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "decode.h"

namespace apex {

struct PoolError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Jobs run in the order of submission, and all threads share each of them. An idle thread spins for `spin_us`, then
// sleeps. One thread at a time may call submit() and stop() (the interpreter lock sees to it); any may wait.
class Pool {
 public:
  // How many jobs may be in flight: a cohort for every layer of the deepest model there is, and as many that overslept.
  static constexpr int kSlots = 256;

  // `cores` is empty, or names one core per thread. Throws PoolError if the system refuses a thread or a core.
  Pool(int threads, const std::vector<int>& cores, int spin_us);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return thread_count_; }

  // Whether submit() may be called now; false only with kSlots jobs in flight.
  bool has_room() const;
  void wait_for_room();
  // Returns the job's ticket; tickets count up from 0.
  uint64_t submit(const DecodeArguments& arguments, const Kernels& kernels);
  uint64_t submitted() const { return published_.load(std::memory_order_acquire); }

  bool done(uint64_t ticket) const;
  void wait(uint64_t ticket);

  // When the first thread began and the last one finished, on the monotonic clock; zeros once the slot is in use again.
  struct Span {
    int64_t began_ns;
    int64_t ended_ns;
  };
  Span span(uint64_t ticket) const;
  // What all threads together have spent on jobs.
  int64_t busy_ns() const { return busy_ns_.load(std::memory_order_relaxed); }

  // No submit() after stop(); join() returns when everything in flight is done and the threads have ended.
  void stop();
  void join();
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  // A forked child inherits the object without its threads: it must not submit, wait or join.
  bool forked() const;

 private:
  struct alignas(64) Slot {
    DecodeJob job;
    std::atomic<uint64_t> ticket{UINT64_MAX};
    std::atomic<uint32_t> done{1};
    std::atomic<int32_t> inside{0};  // threads that may still look at the job; the slot is free at 0
    std::atomic<int64_t> began_ns{0};
    std::atomic<int64_t> ended_ns{0};
  };

  void start(const std::vector<int>& cores);
  void work(int worker, int core);
  void run(Slot& slot, int worker);
  bool wait_for_job(uint64_t next);
  void signal();
  bool waiter_may_spin() const;

  const int thread_count_;
  const int64_t spin_ns_;
  const std::vector<int> cores_;
  const int64_t owner_process_;
  Slot slots_[kSlots];
  std::vector<std::thread> workers_;
  std::mutex joining_;
  std::atomic<bool> closed_{false};
  std::atomic<int32_t> pin_errors_{0};
  std::atomic<int32_t> started_{0};
  std::atomic<int64_t> busy_ns_{0};
  // Written by the submitting thread and polled by all others: a cache line of its own.
  alignas(64) std::atomic<uint64_t> published_{0};
  std::atomic<uint32_t> signals_{0};  // changes with every job and at the end; what sleeping threads wait for
};

}  // namespace apex
