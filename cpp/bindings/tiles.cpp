// The tile kernels of a level that is named, one call each: for tests and measurements.

#include "equibit/tiles.h"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <new>

#include "arrays.h"
#include "errors.h"
#include "functions.h"
#include "levels.h"

namespace equibit {

namespace {

const Level& level_of(const std::string& name) {
  const Level* level = find_level(name.c_str());
  if (level != nullptr && runs_here(*level)) return *level;
  raise_input_error("'" + name + "' is not a kernel level that runs here.");
}

const TileKernels& tiles_of(const std::string& name) { return kernels_of(level_of(name)).tiles; }

constexpr std::align_val_t border{64};

struct FreeAligned {
  void operator()(void* memory) const { ::operator delete(memory, border); }
};

// Values on a 64-byte border, as the kernels want them.
template <typename Value>
using Aligned = std::unique_ptr<Value[], FreeAligned>;

template <typename Value>
Aligned<Value> allocate(std::int64_t size) {
  const auto count = static_cast<std::size_t>(std::max<std::int64_t>(size, 1));
  return Aligned<Value>(static_cast<Value*>(::operator new(count * sizeof(Value), border)));
}

template <typename Value>
Aligned<Value> aligned_copy(const Value* values, std::int64_t size) {
  Aligned<Value> copy = allocate<Value>(size);
  std::copy(values, values + size, copy.get());
  return copy;
}

template <typename Value>
Output<Value> to_array(const Aligned<Value>& values, const Shape& shape) {
  const std::size_t size = element_count(shape);
  std::unique_ptr<Value[]> copy(new Value[size]);
  std::copy(values.get(), values.get() + size, copy.get());
  return make_array<Value>(std::move(copy), shape);
}

void check(bool right, const char* needed) {
  if (!right) raise_input_error(std::string("needed: ") + needed + ".");
}

// Weights as bytes (filters, bytes).
using WeightBytes = Matrix<std::uint8_t>;

Aligned<std::uint8_t> laid_out(const WeightBytes& weights, decltype(table_size) size,
                               decltype(lay_out_table) lay_out) {
  const auto filters = static_cast<std::int64_t>(weights.shape(0)),
             bytes = static_cast<std::int64_t>(weights.shape(1));
  Aligned<std::uint8_t> out = allocate<std::uint8_t>(size(filters, bytes));
  lay_out(weights.data(), filters, bytes, out.get());
  return out;
}

// The kernel over a panel of `lanes` places.
template <typename Value, typename Sum>
Output<Sum> run_table(void (*kernel)(const Value*, std::int64_t, std::int64_t, const std::uint8_t*,
                                     std::int64_t, void*, Sum*),
                      const Value* panel, std::int64_t lanes, const WeightBytes& weights) {
  const auto count = static_cast<std::int64_t>(weights.shape(0)),
             bytes = static_cast<std::int64_t>(weights.shape(1));
  check(lanes > 0 && lanes % 16 == 0 && lanes <= most_lanes, "16 or 32 lanes");
  const Aligned<Value> inputs = aligned_copy(panel, 8 * bytes * lanes);
  const Aligned<std::uint8_t> filters = laid_out(weights, table_size, lay_out_table);
  const Aligned<std::uint8_t> scratch = allocate<std::uint8_t>(table_scratch);
  const Aligned<Sum> out = allocate<Sum>((count + table_block) * lanes);
  kernel(inputs.get(), bytes, lanes, filters.get(), count, scratch.get(), out.get());
  return to_array(out, {count, lanes});
}

Output<float> dense_tile_f32(const std::string& level, const Matrix<float>& panel,
                             const Matrix<float>& weights) {
  const auto count = static_cast<std::int64_t>(weights.shape(0)),
             k = static_cast<std::int64_t>(weights.shape(1));
  const auto lanes = static_cast<std::int64_t>(panel.shape(1));
  check(panel.shape(0) == weights.shape(1), "panel (k, lanes), weights (filters, k)");
  check(lanes > 0 && lanes % 16 == 0 && lanes <= most_lanes, "16 or 32 lanes");
  const Aligned<float> inputs = aligned_copy(panel.data(), k * lanes), out = allocate<float>(count * lanes);
  tiles_of(level).dense_tile_f32(inputs.get(), k, lanes, weights.data(), count, out.get());
  return to_array(out, {count, lanes});
}

// The kernel for rows of taps, whose sums are added to zeros: (filters, rows, lanes).
template <typename Value, typename Sum>
Output<Sum> run_rows(void (*kernel)(const Value*, std::int64_t, std::int64_t, const std::uint8_t*,
                                    std::int64_t, const TapRows&, void*, Sum*),
                     const Value* panel, std::int64_t lanes, const WeightBytes& weights, std::int64_t rows) {
  const auto count = static_cast<std::int64_t>(weights.shape(0)),
             bytes = static_cast<std::int64_t>(weights.shape(1));
  check(lanes > 0 && lanes % 16 == 0 && lanes <= most_lanes, "16 or 32 lanes");
  check(rows > 0 && bytes % rows == 0, "rows that divide the bytes of a filter");
  const Aligned<Value> inputs = aligned_copy(panel, 8 * bytes / rows * lanes);
  const Aligned<std::uint8_t> filters = laid_out(weights, table_size, lay_out_table);
  const Aligned<std::uint8_t> scratch = allocate<std::uint8_t>(table_scratch);
  const Aligned<Sum> out = allocate<Sum>((count + table_block) * rows * lanes);
  std::fill_n(out.get(), (count + table_block) * rows * lanes, Sum{0});
  kernel(inputs.get(), bytes / rows, lanes, filters.get(), count, {rows, rows * lanes, lanes}, scratch.get(),
         out.get());
  return to_array(out, {count, rows, lanes});
}

Output<float> table_tile_f32(const std::string& level, const Matrix<float>& panel,
                             const WeightBytes& weights) {
  check(panel.shape(0) == 8 * weights.shape(1), "panel (8 bytes, lanes), weights (filters, bytes)");
  return run_table(tiles_of(level).table_tile_f32, panel.data(), static_cast<std::int64_t>(panel.shape(1)),
                   weights);
}

using Quads = nb::ndarray<const std::int8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

Output<std::int32_t> run_quads(decltype(TileKernels::vnni_tile) kernel, const Quads& panel,
                               const WeightBytes& weights) {
  check(panel.shape(0) == 2 * weights.shape(1) && panel.shape(2) == 4,
        "panel (2 bytes, lanes, 4), weights (filters, bytes)");
  return run_table(kernel, panel.data(), static_cast<std::int64_t>(panel.shape(1)), weights);
}

Output<float> table_rows_f32(const std::string& level, const Matrix<float>& panel, const WeightBytes& weights,
                             std::int64_t rows) {
  check(panel.shape(0) * static_cast<std::size_t>(rows) == 8 * weights.shape(1),
        "panel (8 bytes / rows, lanes), weights (filters, bytes)");
  return run_rows(tiles_of(level).table_rows_f32, panel.data(), static_cast<std::int64_t>(panel.shape(1)),
                  weights, rows);
}

Output<std::int32_t> table_rows_i8(const std::string& level, const Quads& panel, const WeightBytes& weights,
                                   std::int64_t rows) {
  check(panel.shape(0) * static_cast<std::size_t>(rows) == 2 * weights.shape(1) && panel.shape(2) == 4,
        "panel (2 bytes / rows, lanes, 4), weights (filters, bytes)");
  return run_rows(tiles_of(level).table_rows_i8, panel.data(), static_cast<std::int64_t>(panel.shape(1)),
                  weights, rows);
}

Output<std::int32_t> table_tile_i8(const std::string& level, const Quads& panel, const WeightBytes& weights) {
  return run_quads(tiles_of(level).table_tile_i8, panel, weights);
}

Output<std::int32_t> vnni_tile(const std::string& level, const Quads& panel, const WeightBytes& weights) {
  return run_quads(tiles_of(level).vnni_tile, panel, weights);
}

template <typename Value, typename Sum>
Output<Sum> run_gemv(void (*kernel)(const Value*, std::int64_t, const std::uint8_t*, std::int64_t, void*,
                                    Sum*),
                     const Input<Value>& x, const WeightBytes& weights) {
  const auto count = static_cast<std::int64_t>(weights.shape(0)),
             bytes = static_cast<std::int64_t>(weights.shape(1));
  check(x.ndim() == 1 && x.shape(0) == 8 * weights.shape(1), "x (8 bytes,), weights (filters, bytes)");
  const Aligned<Value> inputs = aligned_copy(x.data(), 8 * bytes);
  const Aligned<std::uint8_t> filters = laid_out(weights, gemv_size, lay_out_gemv);
  const Aligned<std::uint8_t> scratch = allocate<std::uint8_t>(gemv_scratch(bytes));
  const Aligned<Sum> y = allocate<Sum>(count);
  kernel(inputs.get(), bytes, filters.get(), count, scratch.get(), y.get());
  return to_array(y, {count});
}

Output<float> gemv_f32(const std::string& level, const Input<float>& x, const WeightBytes& weights) {
  return run_gemv(tiles_of(level).gemv_f32, x, weights);
}

Output<std::int32_t> gemv_i8(const std::string& level, const Input<std::int8_t>& x,
                             const WeightBytes& weights) {
  return run_gemv(tiles_of(level).gemv_i8, x, weights);
}

// Words of rows that lie one after the other.
using WordRows = Matrix<Word>;

Output<std::int32_t> xnor_tile(const std::string& level, const WordRows& panel, const WordRows& weights) {
  const auto words = static_cast<std::int64_t>(panel.shape(0)),
             lanes = static_cast<std::int64_t>(panel.shape(1));
  const auto count = static_cast<std::int64_t>(weights.shape(0)), blocks = blocks_for(count);
  check(weights.shape(1) == panel.shape(0), "panel (words, lanes), weights (filters, words)");
  check(lanes > 0 && lanes % 8 == 0 && lanes <= most_lanes, "8, 16, 24 or 32 lanes");
  const TileKernels& tiles = tiles_of(level);
  const Aligned<Word> inputs = aligned_copy(panel.data(), words * lanes);
  const Aligned<Word> filters = allocate<Word>(filter_block * blocks * words);
  const auto out = allocate<std::int32_t>(filter_block * blocks * lanes);
  lay_out_words(weights.data(), count, words, filters.get());
  tiles.fold_words(inputs.get(), words, lanes);
  tiles.xnor_tile(inputs.get(), words, lanes, filters.get(), blocks, out.get());
  return to_array(out, {count, lanes});
}

Output<std::int32_t> gemv_xnor(const std::string& level, const Input<Word>& x, const WordRows& weights) {
  const auto count = static_cast<std::int64_t>(weights.shape(0)),
             words = static_cast<std::int64_t>(weights.shape(1));
  check(x.ndim() == 1 && x.shape(0) == weights.shape(1), "x (words,), weights (filters, words)");
  const auto y = allocate<std::int32_t>(count);
  tiles_of(level).gemv_xnor(x.data(), words, weights.data(), count, y.get());
  return to_array(y, {count});
}

Output<Word> pack_planes(const std::string& level, const Matrix<float>& x) {
  const auto channels = static_cast<std::int64_t>(x.shape(0)), places = static_cast<std::int64_t>(x.shape(1));
  const Aligned<Word> planes = allocate<Word>(words_for(channels) * places);
  tiles_of(level).pack_planes(x.data(), channels, places, planes.get());
  return to_array(planes, {words_for(channels), places});
}

Output<Word> pack_rows(const std::string& level, const Matrix<float>& x) {
  const auto rows = static_cast<std::int64_t>(x.shape(0)), n = static_cast<std::int64_t>(x.shape(1));
  const Aligned<Word> packed = allocate<Word>(rows * words_for(n));
  kernels_of(level_of(level)).pack_f32(x.data(), rows, n, packed.get());
  return to_array(packed, {rows, words_for(n)});
}

// Cycles of this core in a second: additions of which each waits for the one before take one cycle each.
double clock_rate() {
  using Clock = std::chrono::steady_clock;
  constexpr int additions = 200'000, rounds = 20;
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    const Clock::time_point start = Clock::now();
    std::uint64_t sum = 0;
    for (int i = 0; i < additions; ++i) {
      sum += 1;
      asm volatile("" : "+r"(sum));  // the compiler does not see the sum through
    }
    best = std::max(best, additions / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

}  // namespace

void define_tiles(nb::module_& module) {
  module.def("dense_tile_f32", dense_tile_f32);
  module.def("table_tile_f32", table_tile_f32);
  module.def("table_rows_f32", table_rows_f32);
  module.def("table_tile_i8", table_tile_i8);
  module.def("table_rows_i8", table_rows_i8);
  module.def("vnni_tile", vnni_tile);
  module.def("gemv_f32", gemv_f32);
  module.def("gemv_i8", gemv_i8);
  module.def("clock_rate", clock_rate);
  module.def("xnor_tile", xnor_tile);
  module.def("gemv_xnor", gemv_xnor);
  module.def("pack_planes", pack_planes);
  module.def("pack_rows", pack_rows);
}

}  // namespace equibit
