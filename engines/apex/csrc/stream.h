// How fast this machine reads memory with some of its cores: the limit that decode attention is measured against.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel.h"

namespace apex {

struct ReadTime {
  double seconds;  // from the first thread's start to the last one's end
  int64_t bytes;   // read in that time
};

// One thread per core, pinned to it, each reading its own part of the range once. Throws PoolError if the system
// refuses a thread or a core.
ReadTime read_stream(const char* data, int64_t bytes, ReadPattern pattern, const std::vector<int>& cores,
                     const Kernels& kernels);

}  // namespace apex
