// equibit.kernels._core: checks arguments, then runs the kernels of the active level without the GIL.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "functions.h"
#include "levels.h"

NB_MODULE(_core, module) {
  module.def("available", equibit::available_levels);
  module.def("active", [] { return equibit::active_level().name; });
  module.def("runs_fast", equibit::runs_fast);
  equibit::define_convolution(module);
  equibit::define_packing(module);
  equibit::define_selection(module);
  equibit::define_tiles(module);
  equibit::define_xnor(module);
}
