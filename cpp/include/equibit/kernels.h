// What every instruction set implements. Kernels neither validate nor print, allocate or abort: whoever calls
// them has checked the shapes, that padding bits are zero, and that every dot product fits 32 bits.
#pragma once

#include <cstdint>

#include "equibit/tiles.h"
#include "equibit/word.h"

namespace equibit {

// Weights as bits. `mask` marks the kept ones of a pruned layer (a sign bit is zero where it is clear); null:
// all kept.
struct Filters {
  const Word* signs;
  const Word* mask;
};

struct LinearShape {
  std::int64_t rows;     // of x
  std::int64_t filters;  // rows of w
  std::int64_t n;        // bits of a row
};

// x: [batch][input.height][input.width][groups][words_for(channels)], filters: as `repack_filters` writes
// them, y: [batch][filters][output.height][output.width].
struct Conv2dShape {
  std::int64_t batch;
  std::int64_t groups;
  std::int64_t channels;  // of the input, in one group
  std::int64_t filters;   // in all groups together
  Size2 input;
  Size2 output;
  Size2 kernel;
  Size2 stride;
  Size2 padding;  // before the first row and column
  Size2 dilation;
  std::int32_t pad_value;  // what a place outside the input reads: -1, 0 or 1
};

// Rows of values and their levels by rank. In the order of each row (by value, then by index) the first `low`
// values become levels[0], the next `middle` levels[1], the others levels[2].
struct Selection {
  std::int64_t rows;
  std::int64_t n;     // values of a row, at least 1
  std::int64_t taps;  // divides n: a row is stored as [taps][n / taps] and indexed as [n / taps][taps]
  std::int64_t low;   // low + middle <= n
  std::int64_t middle;
  bool magnitude;  // whether the order is that of |value|
};

// Values of scratch memory that a selection takes: two rows, with room for a vector that overhangs each.
constexpr std::int64_t select_padding = 16;
constexpr std::int64_t select_scratch(std::int64_t n) { return 2 * (n + select_padding); }

// The kernels of one level. Each is exact: the levels differ in speed only.
struct Kernels {
  // bit = value >= 0, for `rows` rows of `n` values
  void (*pack_f32)(const float* values, std::int64_t rows, std::int64_t n, Word* packed);
  void (*pack_f64)(const double* values, std::int64_t rows, std::int64_t n, Word* packed);
  void (*pack_i8)(const std::int8_t* values, std::int64_t rows, std::int64_t n, Word* packed);
  // value = bit ? 1 : -1
  void (*unpack_f32)(const Word* packed, std::int64_t rows, std::int64_t n, float* values);
  void (*unpack_f64)(const Word* packed, std::int64_t rows, std::int64_t n, double* values);
  void (*unpack_i8)(const Word* packed, std::int64_t rows, std::int64_t n, std::int8_t* values);
  // y[row][filter] = dot product of a row of x and a filter
  void (*xnor_linear)(const LinearShape& shape, const Word* x, Filters w, std::int32_t* y);
  void (*xnor_conv2d)(const Conv2dShape& shape, const Word* x, Filters w, std::int32_t* y);
  // out[row][i] = the level of values[row][i] by rank; `scratch` holds select_scratch(n) values
  void (*select_f32)(const Selection& selection, const float* values, const float* levels, float* scratch,
                     float* out);
  void (*select_f64)(const Selection& selection, const double* values, const double* levels, double* scratch,
                     double* out);
  // the value at `rank`, from 0, of n in ascending order (or of their magnitudes); scratch as of a selection
  float (*value_at_f32)(const float* values, std::int64_t n, std::int64_t rank, bool magnitude,
                        float* scratch);
  double (*value_at_f64)(const double* values, std::int64_t n, std::int64_t rank, bool magnitude,
                         double* scratch);
  TileKernels tiles;
};

// The plain loops of every kernel.
void fill_portable(Kernels& kernels);

}  // namespace equibit
