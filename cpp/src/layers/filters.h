// A layer's filters in the layouts of the kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "equibit/convolution.h"

namespace equibit {

// What computes a layer: words, floats (by tables or by multiplications) or quads of bytes, in tiles, one row
// at a time, or whole maps.
enum class Family { xnor, xnor_row, table, dense, grouped, depthwise, float_row, byte_table, vnni, byte_row };

constexpr std::size_t family_count = 10;

// Whether it takes one input of a linear layer at a time.
constexpr bool is_single(Family family) {
  return family == Family::xnor_row || family == Family::float_row || family == Family::byte_row;
}

// Whether it takes tiles of places.
constexpr bool has_tiles(Family family) { return !is_single(family) && family != Family::depthwise; }

// Channels that a panel row holds.
constexpr std::int64_t channels_per_row(Family family) {
  if (family == Family::xnor || family == Family::xnor_row) return word_bits;
  return family == Family::byte_table || family == Family::vnni || family == Family::byte_row ? 4 : 1;
}

// Bytes of one lane of a panel row.
constexpr std::int64_t lane_bytes(Family family) {
  return family == Family::xnor || family == Family::xnor_row ? sizeof(Word) : sizeof(float);
}

// Memory on a 64-byte border.
class Aligned {
 public:
  explicit Aligned(std::int64_t bytes) : memory_(static_cast<std::size_t>(bytes) + 63) {}

  std::uint8_t* data() {
    return memory_.data() + (64 - reinterpret_cast<std::uintptr_t>(memory_.data()) % 64) % 64;
  }
  const std::uint8_t* data() const { return const_cast<Aligned*>(this)->data(); }

 private:
  std::vector<std::uint8_t> memory_;
};

// Rows of -1 and +1: a filter of two levels is one, a filter of three is two (see Counts).
class BinaryRows {
 public:
  explicit BinaryRows(const Layer& layer);

  std::int64_t channels() const { return channels_; }
  std::int64_t taps() const { return taps_; }
  std::int64_t n() const { return taps_ * channels_; }  // weights of a filter
  std::int64_t per_filter() const { return per_filter_; }
  std::int64_t groups() const { return groups_; }
  std::int64_t in_group() const { return in_group_; }  // rows of a group

  // Taps that share a panel row: words hold several taps of few channels.
  std::int64_t taps_together(Family family) const;

  // Panel rows of a tap, as gathered, and of a filter, and the bytes of a row's bits.
  std::int64_t tap_rows(Family family) const;
  std::int64_t panel_rows(Family family) const;
  std::int64_t row_bytes(Family family) const;

  // Sum of the weights of a row at a tap; `row` counts over all groups.
  std::int32_t tap_sum(std::int64_t row, std::int64_t tap) const;

  // The bits of a row, taps filled up to whole panel rows, into row_bytes(family) bytes that are zero.
  void write_row(std::int64_t row, Family family, std::uint8_t* out) const;

 private:
  friend class LaidOut;
  void write_bits(const Word* bits, Family family, std::uint8_t* out) const;

  std::int64_t channels_, taps_, per_filter_, groups_, in_group_;
  std::vector<Word> words_;  // [rows][words of a row], taps one after the other as in a file
};

// The rows as one family reads them.
class LaidOut {
 public:
  LaidOut(const BinaryRows& rows, Family family);

  // The rows of a group from row `first`, a multiple of layout_block, on.
  const std::uint8_t* from(std::int64_t group, std::int64_t first) const;

  // Bytes from one group to the next.
  std::int64_t group_stride() const { return group_stride_; }

  // One row of +1, laid out alone: its dot product is the sum of the inputs.
  const std::uint8_t* ones() const { return ones_.data(); }

 private:
  // Bytes that `count` rows take.
  std::int64_t size_of(std::int64_t count) const;
  void lay_out(const std::uint8_t* rows, std::int64_t count, std::uint8_t* out) const;
  void add_rows(std::int64_t filters, float* out) const;

  Family family_;
  std::int64_t row_bytes_;
  std::int64_t group_stride_;
  std::int64_t n_;
  std::int64_t per_filter_;
  Aligned laid_out_, ones_;
};

}  // namespace equibit
