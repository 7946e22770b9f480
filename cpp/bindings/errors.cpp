#include "errors.h"

#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace equibit {

namespace {

[[noreturn]] void raise(const char* kind, const std::string& message) {
  const nb::object type = nb::module_::import_("equibit.errors").attr(kind);
  PyErr_SetString(type.ptr(), message.c_str());
  throw nb::python_error();
}

}  // namespace

void raise_input_error(const std::string& message) { raise("InputError", message); }

void raise_format_error(const std::string& message) { raise("FormatError", message); }

}  // namespace equibit
