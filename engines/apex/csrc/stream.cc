#include "stream.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <system_error>
#include <thread>

#include "affinity.h"
#include "monotonic.h"
#include "pool.h"

namespace apex {

namespace {

// What the threads of one reading share. They start together: creating a thread takes longer than reading 1 MiB.
struct Reading {
  std::atomic<int> ready{0};
  std::atomic<int> unpinned{0};
  std::atomic<int> go{0};  // 1: read, -1: end without reading
  std::atomic<uint64_t> seen{0};
};

struct Part {
  const char* data;
  int64_t bytes;
  int core;
  int64_t began_ns;
  int64_t ended_ns;
};

void read_part(Reading& shared, Part& part, ReadPattern pattern, const Kernels& kernels) {
  if (!pin_this_thread(part.core)) shared.unpinned.fetch_add(1);
  shared.ready.fetch_add(1);
  shared.ready.notify_one();
  shared.go.wait(0);
  if (shared.go.load() < 0) return;
  part.began_ns = monotonic_ns();
  shared.seen.fetch_xor(kernels.read(part.data, part.bytes, pattern));
  part.ended_ns = monotonic_ns();
}

void release(Reading& shared, int go, std::vector<std::thread>& threads) {
  shared.go.store(go);
  shared.go.notify_all();
  for (std::thread& thread : threads)
    thread.join();
}

}  // namespace

ReadTime read_stream(const char* data, int64_t bytes, ReadPattern pattern, const std::vector<int>& cores,
                     const Kernels& kernels) {
  constexpr int64_t kPageBytes = 4096;
  const auto count = static_cast<int64_t>(cores.size());
  const int64_t share = bytes / count / kPageBytes * kPageBytes;
  Reading shared;
  std::vector<Part> parts;
  for (int64_t i = 0; i < count; ++i)
    parts.push_back({data + i * share, share, cores[i], 0, 0});
  std::vector<std::thread> threads;
  threads.reserve(parts.size());
  try {
    for (Part& part : parts)
      threads.emplace_back([&shared, &part, pattern, &kernels] { read_part(shared, part, pattern, kernels); });
  } catch (const std::system_error& error) {
    release(shared, -1, threads);
    throw PoolError(std::string("cores: the system refuses to start a thread for each (") + error.what() + ")");
  }
  for (int ready = shared.ready.load(); ready < count; ready = shared.ready.load())
    shared.ready.wait(ready);
  const bool pinned = shared.unpinned.load() == 0;
  release(shared, pinned ? 1 : -1, threads);
  if (!pinned) throw PoolError("cores: this process may not run on all of them, or they do not exist");
  int64_t began_ns = parts[0].began_ns;
  int64_t ended_ns = parts[0].ended_ns;
  for (const Part& part : parts) {
    began_ns = std::min(began_ns, part.began_ns);
    ended_ns = std::max(ended_ns, part.ended_ns);
  }
  return {static_cast<double>(ended_ns - began_ns) * 1e-9, share * count};
}

}  // namespace apex
