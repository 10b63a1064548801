#include "tensor.h"

#include <nanobind/ndarray.h>

#include <algorithm>
#include <string>

#include "errors.h"

namespace nb = nanobind;

namespace apex {

namespace {

// The DLPack exchange table (DLPack 1.2 and later), which a tensor class carries in a capsule. Only the entry for
// borrowing a description is used; the struct is the published C layout with the other entries left opaque.
struct ExchangeTable {
  uint32_t version_major;
  uint32_t version_minor;
  void* previous;
  void* allocate;
  void* export_owned;
  void* import_owned;
  int (*borrow)(void* object, nb::dlpack::dltensor* out);
  void* current_stream;
};

const ExchangeTable* exchange_table(PyTypeObject* type) {
  // One class of tensor in practice; the interpreter lock protects the pair. Classes live as long as the process here,
  // and a reference makes sure of it.
  static PyTypeObject* known_type = nullptr;
  static const ExchangeTable* known_table = nullptr;
  if (type == known_type) return known_table;
  nb::object capsule =
      nb::getattr(nb::handle(reinterpret_cast<PyObject*>(type)), "__dlpack_c_exchange_api__", nb::none());
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
  const auto* table = static_cast<const ExchangeTable*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (table->version_major != 1 || table->borrow == nullptr) return nullptr;
  Py_INCREF(reinterpret_cast<PyObject*>(type));
  Py_XDECREF(reinterpret_cast<PyObject*>(known_type));
  known_type = type;
  known_table = table;
  return table;
}

Dtype dtype_of(nb::dlpack::dtype dtype, const char* name) {
  using Code = nb::dlpack::dtype_code;
  const auto code = static_cast<Code>(dtype.code);
  if (dtype.lanes == 1) {
    if (code == Code::Float && dtype.bits == 32) return Dtype::kFloat32;
    if (code == Code::Float && dtype.bits == 16) return Dtype::kFloat16;
    if (code == Code::Bfloat && dtype.bits == 16) return Dtype::kBfloat16;
    if (code == Code::Int && dtype.bits == 32) return Dtype::kInt32;
  }
  raise_type_error(std::string(name) + ": expected float32, float16, bfloat16 or int32, got a dtype of " +
                   text(dtype.bits) + " bits (DLPack code " + text(dtype.code) + ")");
}

// Memory of these devices is host memory: plain, or pinned by a GPU driver.
bool is_host(int32_t device) {
  return device == nb::device::cpu::value || device == nb::device::cuda_host::value ||
         device == nb::device::rocm_host::value;
}

Tensor tensor_of(const nb::dlpack::dltensor& source, const char* name) {
  if (!is_host(source.device.device_type)) {
    raise_value_error(std::string(name) + ": expected a CPU tensor, got one on DLPack device type " +
                      text(source.device.device_type));
  }
  if (source.ndim > Tensor::kMaxRank)
    raise_value_error(std::string(name) + ": too many dimensions (" + text(source.ndim) + ")");
  Tensor tensor;
  tensor.dtype = dtype_of(source.dtype, name);
  tensor.data = static_cast<char*>(source.data) + source.byte_offset;
  tensor.rank = source.ndim;
  int64_t elements = 1;
  for (int i = source.ndim - 1; i >= 0; --i) {
    tensor.shape[i] = source.shape[i];
    tensor.strides[i] = source.strides ? source.strides[i] : elements;
    elements *= source.shape[i];
  }
  if (elements > 0 && source.data == nullptr) raise_value_error(std::string(name) + ": has no memory (a meta tensor?)");
  return tensor;
}

// Through nanobind: __dlpack__ or the buffer protocol. The description outlives the capsule because the object, which
// owns the memory, is kept by the caller.
Tensor describe_by_protocol(nb::handle object, const char* name, Access access) {
  nb::ndarray<nb::ro> readable;
  if (!nb::try_cast(object, readable, false)) {
    raise_type_error(std::string(name) + ": expected a CPU tensor or array, got " + nb::inst_name(object).c_str());
  }
  nb::ndarray<> writable;
  if (access == Access::kWrite && !nb::try_cast(object, writable, false)) {
    raise_value_error(std::string(name) + ": is written to, but the array is read-only");
  }
  int64_t shape[Tensor::kMaxRank] = {};
  int64_t strides[Tensor::kMaxRank] = {};
  const auto rank = static_cast<int32_t>(readable.ndim());
  for (int32_t i = 0; i < rank && i < Tensor::kMaxRank; ++i) {
    shape[i] = static_cast<int64_t>(readable.shape(i));
    strides[i] = readable.stride(i);
  }
  return tensor_of({const_cast<void*>(readable.data()),
                    {readable.device_type(), readable.device_id()},
                    rank,
                    readable.dtype(),
                    shape,
                    strides,
                    0},
                   name);
}

}  // namespace

Tensor describe(nb::handle object, const char* name, Access access) {
  const ExchangeTable* table = exchange_table(Py_TYPE(object.ptr()));
  if (table == nullptr) return describe_by_protocol(object, name, access);
  nb::dlpack::dltensor borrowed;
  if (table->borrow(object.ptr(), &borrowed) != 0) {
    const nb::python_error error;  // a meta or sparse tensor, for example
    std::string reason = nb::str(error.value()).c_str();
    reason.resize(std::min(reason.find('\n'), reason.size()));  // torch appends its C++ stack
    raise_value_error(std::string(name) + ": expected a dense CPU tensor (" + reason + ")");
  }
  return tensor_of(borrowed, name);
}

}  // namespace apex
