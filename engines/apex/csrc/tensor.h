// Any Python object that speaks DLPack, as a plain description of its memory.
//
// torch fills such a description through a C function in some 50 ns; the general protocol, with a capsule per tensor,
// costs 2 us, and one call of decode attention takes six tensors. Both ways end in the same description.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

#include "kernel.h"

namespace apex {

enum class Access { kRead, kWrite };

struct Tensor {
  static constexpr int kMaxRank = 4;

  char* data = nullptr;
  Dtype dtype = Dtype::kFloat32;
  int rank = 0;
  int64_t shape[kMaxRank] = {};
  int64_t strides[kMaxRank] = {};  // in elements

  int64_t element_bytes() const { return dtype == Dtype::kFloat32 || dtype == Dtype::kInt32 ? 4 : 2; }
  int64_t stride_bytes(int dimension) const { return strides[dimension] * element_bytes(); }
};

// `name` is used in messages. Raises TypeError for what is no tensor or has another dtype than those of Dtype, and
// ValueError for memory that the CPU cannot reach or may not write, or for more than four dimensions.
// The memory stays valid only as long as the Python object is kept.
Tensor describe(nanobind::handle object, const char* name, Access access);

}  // namespace apex
