// The clock of Python's time.monotonic() on Linux.
#pragma once

#include <chrono>
#include <cstdint>

namespace apex {

inline int64_t monotonic_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace apex
