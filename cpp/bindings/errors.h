// Errors of equibit.errors, raised from C++.
#pragma once

#include <string>

namespace equibit {

// An argument is outside what is allowed.
[[noreturn]] void raise_input_error(const std::string& message);

// Packed bits break a rule of their format.
[[noreturn]] void raise_format_error(const std::string& message);

}  // namespace equibit
