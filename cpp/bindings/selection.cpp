// select and values_at.

#include <nanobind/stl/array.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>

#include "arrays.h"
#include "equibit/parallel.h"
#include "errors.h"
#include "functions.h"
#include "levels.h"

namespace equibit {

namespace {

template <typename Value>
using Writable = nb::ndarray<Value, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename Value>
using Vector = nb::ndarray<Value, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr std::int64_t ranges_per_thread = 4;  // so that a thread that starts late does less

void check_row(std::int64_t n) {
  if (n < 1 || n > INT32_MAX) {
    raise_input_error("a row of " + std::to_string(n) + " values. Allowed: 1 to " +
                      std::to_string(INT32_MAX) + ".");
  }
}

void check_selection(const Selection& selection, std::int64_t threads, bool shapes_agree) {
  if (!shapes_agree) raise_input_error("values and out differ in shape; they must agree.");
  const bool counts_fit = 0 <= selection.low && selection.low <= selection.n && 0 <= selection.middle &&
                          selection.middle <= selection.n - selection.low;
  if (!counts_fit) {
    raise_input_error("low = " + std::to_string(selection.low) + " and middle = " +
                      std::to_string(selection.middle) + " of rows of " + std::to_string(selection.n) +
                      " values; counts are at least 0 and sum to at most that.");
  }
  if (selection.taps < 1 || selection.n % selection.taps != 0) {
    raise_input_error("taps = " + std::to_string(selection.taps) + " does not divide a row of " +
                      std::to_string(selection.n) + " values.");
  }
  if (threads < 1 || threads > 4096) {
    raise_input_error("threads is " + std::to_string(threads) + ". Allowed: 1 to 4096.");
  }
}

void check_ranks(const std::vector<std::int64_t>& ranks, std::int64_t n, std::size_t places) {
  if (ranks.size() != places) {
    raise_input_error("out has room for " + std::to_string(places) + " values, not for " +
                      std::to_string(ranks.size()) + ".");
  }
  for (const std::int64_t rank : ranks) {
    if (rank < 0 || rank >= n) {
      raise_input_error("rank " + std::to_string(rank) + " of " + std::to_string(n) +
                        " values. Allowed: 0 to " + std::to_string(n - 1) + ".");
    }
  }
}

template <typename Value, auto kernel>
void select(const Matrix<Value>& values, const Writable<Value>& out, std::int64_t low, std::int64_t middle,
            const std::array<Value, 3>& levels, bool magnitude, std::int64_t taps, std::int64_t threads) {
  const auto rows = static_cast<std::int64_t>(values.shape(0));
  const auto n = static_cast<std::int64_t>(values.shape(1));
  const Selection whole{rows, n, taps, low, middle, magnitude};
  check_row(n);
  check_selection(whole, threads, values.shape(0) == out.shape(0) && values.shape(1) == out.shape(1));
  const auto run = active_kernels().*kernel;
  const std::int64_t scratch_size = select_scratch(n);
  const std::unique_ptr<Value[]> scratch(new Value[element_count({threads, scratch_size})]);
  const Value* from = values.data();
  Value* to = out.data();
  const nb::gil_scoped_release released;
  const std::int64_t grain = std::max<std::int64_t>(1, rows / (threads * ranges_per_thread));
  run_parallel(static_cast<int>(threads), rows, grain, [&](int slot, std::int64_t first, std::int64_t last) {
    Selection part = whole;
    part.rows = last - first;
    run(part, from + first * n, levels.data(), scratch.get() + slot * scratch_size, to + first * n);
  });
}

template <typename Value, auto kernel>
void values_at(const Vector<const Value>& values, const Vector<Value>& out,
               const std::vector<std::int64_t>& ranks, bool magnitude) {
  const auto n = static_cast<std::int64_t>(values.shape(0));
  check_row(n);
  check_ranks(ranks, n, out.shape(0));
  const auto value_at = active_kernels().*kernel;
  const std::unique_ptr<Value[]> scratch(new Value[element_count({select_scratch(n)})]);
  const Value* from = values.data();
  Value* to = out.data();
  const nb::gil_scoped_release released;  // and no threads: one waits for memory as long as two
  for (const std::int64_t rank : ranks) *to++ = value_at(from, n, rank, magnitude, scratch.get());
}

template <typename Value, auto kernel, auto order>
void define(nb::module_& module) {
  module.def("select", select<Value, kernel>, nb::arg("values").noconvert(), nb::arg("out").noconvert(),
             nb::arg("low"), nb::arg("middle"), nb::arg("levels"), nb::arg("magnitude"), nb::arg("taps"),
             nb::arg("threads"));
  module.def("values_at", values_at<Value, order>, nb::arg("values").noconvert(), nb::arg("out").noconvert(),
             nb::arg("ranks"), nb::arg("magnitude"));
}

}  // namespace

void define_selection(nb::module_& module) {
  define<float, &Kernels::select_f32, &Kernels::value_at_f32>(module);
  define<double, &Kernels::select_f64, &Kernels::value_at_f64>(module);
}

}  // namespace equibit
