// Messages that name the argument, what it was and what it must be.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>

namespace apex {

[[noreturn]] inline void raise_value_error(const std::string& message) { throw nanobind::value_error(message.c_str()); }

[[noreturn]] inline void raise_type_error(const std::string& message) { throw nanobind::type_error(message.c_str()); }

inline std::string text(int64_t number) { return std::to_string(number); }

}  // namespace apex
