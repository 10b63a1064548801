#include "pool.h"

#include <algorithm>
#include <string>
#include <system_error>

#include "affinity.h"
#include "monotonic.h"

namespace apex {

namespace {

// Tells the core that this is a spin loop: it saves power and leaves the pipeline to a sibling thread.
void relax() {
#if defined(APEX_X86)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Polls until `ready()` or until the time is up; the clock is read rarely enough not to delay the answer.
template <class Ready>
bool spin(int64_t limit_ns, Ready ready) {
  if (ready()) return true;
  if (limit_ns <= 0) return false;
  const int64_t end = monotonic_ns() + limit_ns;
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return true;
      relax();
    }
  } while (monotonic_ns() < end);
  return ready();
}

}  // namespace

Pool::Pool(int threads, const std::vector<int>& cores, int spin_us)
    : thread_count_(threads), spin_ns_(int64_t{1000} * spin_us), cores_(cores), owner_process_(process_id()) {
  try {
    start(cores);
  } catch (...) {
    stop();
    join();
    throw;
  }
}

Pool::~Pool() {
  stop();
  join();
}

void Pool::start(const std::vector<int>& cores) {
  workers_.reserve(thread_count_);
  try {
    for (int i = 0; i < thread_count_; ++i) {
      const int core = cores.empty() ? -1 : cores[i];
      workers_.emplace_back([this, i, core] { work(i, core); });
    }
  } catch (const std::system_error& error) {
    throw PoolError("threads: the system refuses to start " + std::to_string(thread_count_) + " threads (" +
                    error.what() + ")");
  }
  for (int32_t started = started_.load(); started < thread_count_; started = started_.load())
    started_.wait(started);
  if (pin_errors_.load() > 0) throw PoolError("cores: this process may not run on all of them, or they do not exist");
}

void Pool::work(int worker, int core) {
  name_this_thread(worker);
  if (core >= 0 && !pin_this_thread(core)) pin_errors_.fetch_add(1);
  started_.fetch_add(1);
  started_.notify_one();
  for (uint64_t next = 0; wait_for_job(next); ++next)
    run(slots_[next % kSlots], worker);
}

// True when job `next` has been published, false when there will be none.
bool Pool::wait_for_job(uint64_t next) {
  for (;;) {
    // Read before looking for work: a signal in between makes the wait below return at once.
    const uint32_t seen = signals_.load(std::memory_order_acquire);
    const bool closing = closed();  // read first: what was submitted before the end still runs
    if (published_.load(std::memory_order_acquire) > next) return true;
    if (closing) return false;
    const auto signalled = [&] { return signals_.load(std::memory_order_relaxed) != seen; };
    if (!spin(spin_ns_, signalled)) signals_.wait(seen, std::memory_order_acquire);
  }
}

void Pool::run(Slot& slot, int worker) {
  const int64_t began = monotonic_ns();
  int64_t unset = 0;
  slot.began_ns.compare_exchange_strong(unset, began, std::memory_order_relaxed);
  const bool completed = slot.job.run(worker);
  const int64_t ended = monotonic_ns();
  busy_ns_.fetch_add(ended - began, std::memory_order_relaxed);
  if (completed) {
    slot.ended_ns.store(ended, std::memory_order_relaxed);
    slot.done.store(1, std::memory_order_release);
    slot.done.notify_all();
  }
  // A job is done before a thread that found nothing left to take has looked at it; its slot is free only after.
  if (slot.inside.fetch_sub(1, std::memory_order_acq_rel) == 1) slot.inside.notify_all();
}

bool Pool::has_room() const { return slots_[submitted() % kSlots].inside.load(std::memory_order_acquire) == 0; }

void Pool::wait_for_room() {
  std::atomic<int32_t>& inside = slots_[submitted() % kSlots].inside;
  for (int32_t left = inside.load(); left != 0; left = inside.load())
    inside.wait(left);
}

uint64_t Pool::submit(const DecodeArguments& arguments, const Kernels& kernels) {
  const uint64_t ticket = published_.load(std::memory_order_relaxed);
  Slot& slot = slots_[ticket % kSlots];
  slot.job.prepare(arguments, kernels, thread_count_);
  // No thread can complete a job without pieces: it is over before it begins.
  const bool empty = arguments.query.rows == 0;
  const int64_t over_ns = empty ? monotonic_ns() : 0;
  slot.began_ns.store(over_ns, std::memory_order_relaxed);
  slot.ended_ns.store(over_ns, std::memory_order_relaxed);
  slot.inside.store(thread_count_, std::memory_order_relaxed);
  slot.done.store(empty ? 1 : 0, std::memory_order_relaxed);
  slot.ticket.store(ticket, std::memory_order_release);
  published_.store(ticket + 1, std::memory_order_release);
  signal();
  return ticket;
}

void Pool::signal() {
  signals_.fetch_add(1, std::memory_order_release);
  signals_.notify_all();  // one load when nobody sleeps
}

bool Pool::done(uint64_t ticket) const {
  const Slot& slot = slots_[ticket % kSlots];
  // A slot that carries another ticket was free in between, so this job had ended.
  return slot.ticket.load(std::memory_order_acquire) != ticket || slot.done.load(std::memory_order_acquire) == 1;
}

void Pool::wait(uint64_t ticket) {
  Slot& slot = slots_[ticket % kSlots];
  spin(waiter_may_spin() ? spin_ns_ : 0, [&] { return done(ticket); });
  while (!done(ticket))
    slot.done.wait(0, std::memory_order_acquire);
}

// A waiter that spins on a worker's core keeps that worker from running for a whole scheduler slice.
bool Pool::waiter_may_spin() const {
  if (cores_.empty()) return thread_count_ < usable_cores();
  return std::find(cores_.begin(), cores_.end(), current_core()) == cores_.end();
}

Pool::Span Pool::span(uint64_t ticket) const {
  const Slot& slot = slots_[ticket % kSlots];
  const Span span = {slot.began_ns.load(std::memory_order_relaxed), slot.ended_ns.load(std::memory_order_relaxed)};
  return slot.ticket.load(std::memory_order_acquire) == ticket ? span : Span{0, 0};
}

bool Pool::forked() const { return process_id() != owner_process_; }

void Pool::stop() {
  closed_.store(true, std::memory_order_release);
  signal();
}

void Pool::join() {
  const std::lock_guard<std::mutex> lock(joining_);
  for (std::thread& worker : workers_) {
    if (forked()) {
      worker.detach();  // it does not exist in this process
    } else {
      worker.join();
    }
  }
  workers_.clear();
}

}  // namespace apex
