// Two-dimensional convolutions that move down by single rows: what an input row gives to an output row at one
// row of taps, it gives to its neighbours at the others. Its panel and tables are made once, for all rows of
// taps, a third of the work for a 3x3 kernel.
//
// Input places are numbered row by row, p = row * width + column, `width` that of the output: place p stands
// for what an output column reads in that row. Row of taps t adds what p gives to output place p + (pad - t *
// dilation) * width. A window of sums slides over the output places with the tiles of input places; those
// that it leaves are finished.
#pragma once

#include <cstdint>

#include "plan.h"

namespace equibit {

// Whether the layer is of that kind, for a family of tables.
bool can_share_rows(const Plan& plan, Family family, const Size3& input);

// The layer without its rows of taps: its output places are the numbers p.
Geometry single_row_of(const Geometry& geometry);

// Tiles that the window slides over before its sums are moved to its front.
constexpr std::int64_t window_tiles = 4;

// Sums of a filter in the window.
std::int64_t window_length(const Plan& plan, const Size3& input);

// Output places first_place .. last_place - 1 of rows first .. first + count - 1 of a group.
struct Band {
  std::int64_t image, group;
  std::int64_t first, count;
  std::int64_t first_place, last_place;
};

// Memory on 64-byte borders: a panel of one row of taps, the window [count in whole blocks][window_length],
// tables.
struct BandMemory {
  std::uint8_t* panel;
  std::uint8_t* window;
  std::uint8_t* tables;
};

// planes: those of the band's image and group.
void compute_band(const Plan& plan, const Cut& cut, const Arrays& arrays, const Band& band,
                  const std::uint8_t* planes, const BandMemory& memory);

}  // namespace equibit
