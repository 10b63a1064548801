#include "dispatch.h"

#include <atomic>

#if defined(APEX_X86)
#  include <cpuid.h>
#endif

namespace apex {

namespace scalar {
extern const Kernels kKernels;
}
#if defined(APEX_X86)
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}
#endif

namespace {

#if defined(APEX_X86)
// __builtin_cpu_supports also asks whether the operating system saves the wide registers; not every compiler knows the
// name "f16c" there, so that one bit is read directly.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif

std::vector<const Kernels*> find_kernels() {
  std::vector<const Kernels*> found;
#if defined(APEX_X86)
  __builtin_cpu_init();
  if (has_avx512()) found.push_back(&avx512::kKernels);
  if (has_avx2()) found.push_back(&avx2::kKernels);
#endif
  found.push_back(&scalar::kKernels);
  return found;
}

std::atomic<const Kernels*>& active() {
  static std::atomic<const Kernels*> kernels{available_kernels().front()};
  return kernels;
}

std::atomic<Prefetch> prefetch_mode{Prefetch::kAuto};

}  // namespace

Prefetch active_prefetch() { return prefetch_mode.load(std::memory_order_relaxed); }

void select_prefetch(Prefetch prefetch) { prefetch_mode.store(prefetch, std::memory_order_relaxed); }

const std::vector<const Kernels*>& available_kernels() {
  static const std::vector<const Kernels*> kernels = find_kernels();
  return kernels;
}

const Kernels& active_kernels() { return *active().load(std::memory_order_relaxed); }

bool select_kernels(const std::string& isa) {
  for (const Kernels* kernels : available_kernels()) {
    if (isa == kernels->isa) {
      active().store(kernels, std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

}  // namespace apex
