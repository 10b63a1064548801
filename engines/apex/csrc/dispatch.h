// Which set of kernels this process uses: the best the CPU supports, unless a test or a benchmark asks for another.
#pragma once

#include <string>
#include <vector>

#include "kernel.h"

namespace apex {

// The sets this machine can run, best first; "scalar" is always the last.
const std::vector<const Kernels*>& available_kernels();

const Kernels& active_kernels();

// Selects a set by name for calls that start from now on; false if this machine cannot run it.
bool select_kernels(const std::string& isa);

// Prefetching, likewise for calls that start from now on.
Prefetch active_prefetch();
void select_prefetch(Prefetch prefetch);

}  // namespace apex
