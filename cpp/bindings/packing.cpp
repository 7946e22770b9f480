// pack_bits and unpack_bits.

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "arrays.h"
#include "errors.h"
#include "functions.h"
#include "levels.h"

namespace equibit {

namespace {

template <typename Value>
void refuse_nan(const Value* values, std::int64_t rows, std::int64_t n) {
  const Value* end = values + rows * n;
  const Value* nan = std::find_if(values, end, [](Value value) { return std::isnan(value); });
  if (nan == end) return;
  raise_input_error("row " + std::to_string((nan - values) / n) +
                    " holds a NaN, which has no sign. Allowed: every other real number.");
}

template <typename Value, auto kernel>
Output<std::uint8_t> pack_bits(const Matrix<Value>& values) {
  const auto rows = static_cast<std::int64_t>(values.shape(0));
  const auto n = static_cast<std::int64_t>(values.shape(1));
  if constexpr (std::is_floating_point_v<Value>) refuse_nan(values.data(), rows, n);
  const auto pack = active_kernels().*kernel;
  std::unique_ptr<Word[]> packed(new Word[element_count({rows, words_for(n)})]);
  {
    const nb::gil_scoped_release released;
    pack(values.data(), rows, n, packed.get());
  }
  return make_array<std::uint8_t>(std::move(packed), {rows, word_bytes * words_for(n)});
}

template <typename Value, auto kernel>
Output<Value> unpack_bits(const Input<std::uint8_t>& packed, std::int64_t n) {
  const Rows rows("packed", packed, 2, n);
  const auto unpack = active_kernels().*kernel;
  const std::int64_t count = rows.shape()[0];
  std::unique_ptr<Value[]> values(new Value[element_count({count, n})]);
  {
    const nb::gil_scoped_release released;
    unpack(rows.words(), count, n, values.get());
  }
  return make_array<Value>(std::move(values), {count, n});
}

}  // namespace

void define_packing(nb::module_& module) {
  module.def("pack_bits", pack_bits<float, &Kernels::pack_f32>, nb::arg("values").noconvert());
  module.def("pack_bits", pack_bits<double, &Kernels::pack_f64>, nb::arg("values").noconvert());
  module.def("pack_bits", pack_bits<std::int8_t, &Kernels::pack_i8>, nb::arg("values").noconvert());
  module.def("unpack_f32", unpack_bits<float, &Kernels::unpack_f32>, nb::arg("packed").noconvert(),
             nb::arg("n"));
  module.def("unpack_f64", unpack_bits<double, &Kernels::unpack_f64>, nb::arg("packed").noconvert(),
             nb::arg("n"));
  module.def("unpack_i8", unpack_bits<std::int8_t, &Kernels::unpack_i8>, nb::arg("packed").noconvert(),
             nb::arg("n"));
}

}  // namespace equibit
