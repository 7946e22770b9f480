// The functions of equibit.kernels._core, by the file that defines them.
#pragma once

#include <nanobind/nanobind.h>

namespace equibit {

void define_convolution(nanobind::module_& module);
void define_packing(nanobind::module_& module);
void define_selection(nanobind::module_& module);
void define_tiles(nanobind::module_& module);
void define_xnor(nanobind::module_& module);

}  // namespace equibit
