#include "filters.h"

#include <algorithm>
#include <cstring>

#include "equibit/repack.h"
#include "places.h"

namespace equibit {

BinaryRows::BinaryRows(const Layer& layer)
    : channels_(layer.geometry.channels),
      taps_(product(layer.geometry.kernel)),
      per_filter_(layer.mask == nullptr ? 1 : 2),
      groups_(layer.geometry.groups),
      in_group_(layer.geometry.filters / layer.geometry.groups * per_filter_) {
  const std::int64_t words = words_for(n());
  const std::int64_t filters = layer.geometry.filters;
  words_.resize(static_cast<std::size_t>(filters * per_filter_ * words));
  Word* out = words_.data();
  for (std::int64_t filter = 0; filter < filters; ++filter) {
    const std::uint8_t* signs = layer.bits + filter * words * 8;
    if (layer.mask != nullptr) {
      for (std::int64_t word = 0; word < words; ++word) {
        Word sign, mask;
        std::memcpy(&sign, signs + 8 * word, 8);
        std::memcpy(&mask, layer.mask + (filter * words + word) * 8, 8);
        *out++ = sign | (~mask & low_bits(std::min(word_bits, n() - word * word_bits)));
      }
    }
    std::memcpy(out, signs, static_cast<std::size_t>(words) * 8);
    out += words;
  }
}

std::int64_t BinaryRows::tap_rows(Family family) const {
  return (channels_ + channels_per_row(family) - 1) / channels_per_row(family);
}

std::int64_t BinaryRows::taps_together(Family family) const {
  return channels_per_row(family) == word_bits ? std::clamp<std::int64_t>(word_bits / channels_, 1, taps_)
                                               : 1;
}

std::int64_t BinaryRows::panel_rows(Family family) const {
  const std::int64_t together = taps_together(family);
  return (taps_ + together - 1) / together * tap_rows(family);
}

std::int64_t BinaryRows::row_bytes(Family family) const {
  return (panel_rows(family) * channels_per_row(family) + 7) / 8;
}

std::int32_t BinaryRows::tap_sum(std::int64_t row, std::int64_t tap) const {
  const Word* bits = words_.data() + row * words_for(n());
  std::int32_t positive = 0;
  for (std::int64_t channel = 0; channel < channels_; channel += word_bits) {
    positive +=
        popcount64(read_bits(bits, tap * channels_ + channel, std::min(word_bits, channels_ - channel)));
  }
  return 2 * positive - static_cast<std::int32_t>(channels_);
}

void BinaryRows::write_row(std::int64_t row, Family family, std::uint8_t* out) const {
  write_bits(words_.data() + row * words_for(n()), family, out);
}

void BinaryRows::write_bits(const Word* bits, Family family, std::uint8_t* out) const {
  const std::int64_t together = taps_together(family);
  if (together > 1) {
    std::vector<Word> words(static_cast<std::size_t>(panel_rows(family)), 0);
    for (std::int64_t tap = 0; tap < taps_; ++tap) {
      const Word of_tap = read_bits(bits, tap * channels_, channels_);
      words[static_cast<std::size_t>(tap / together)] |= of_tap << (tap % together * channels_);
    }
    std::memcpy(out, words.data(), words.size() * sizeof(Word));
    return;
  }
  const std::int64_t stride = tap_rows(family) * channels_per_row(family);  // bits of a tap
  if (stride == channels_) {
    std::memcpy(out, bits, static_cast<std::size_t>(row_bytes(family)));
    return;
  }
  for (std::int64_t tap = 0; tap < taps_; ++tap) {
    for (std::int64_t channel = 0; channel < channels_; channel += 4) {  // strides are multiples of 4
      const std::int64_t at = tap * stride + channel;
      const Word nibble =
          read_bits(bits, tap * channels_ + channel, std::min<std::int64_t>(4, channels_ - channel));
      out[at / 8] = static_cast<std::uint8_t>(out[at / 8] | nibble << (at % 8));
    }
  }
}

LaidOut::LaidOut(const BinaryRows& rows, Family family)
    : family_(family),
      row_bytes_(rows.row_bytes(family)),
      group_stride_(0),
      n_(rows.n()),
      per_filter_(rows.per_filter()),
      laid_out_(rows.groups() * rounded_up(size_of(rows.in_group()), 64)),
      ones_(size_of(1)) {
  group_stride_ = rounded_up(size_of(rows.in_group()), 64);
  std::vector<std::uint8_t> bits;
  for (std::int64_t group = 0; group < rows.groups(); ++group) {
    bits.assign(static_cast<std::size_t>(rows.in_group() * row_bytes_), 0);
    for (std::int64_t row = 0; row < rows.in_group(); ++row) {
      rows.write_row(group * rows.in_group() + row, family, bits.data() + row * row_bytes_);
    }
    lay_out(bits.data(), rows.in_group(), laid_out_.data() + group * group_stride_);
  }
  std::vector<Word> all(static_cast<std::size_t>(words_for(n_)), ~Word{0});
  if (n_ % word_bits != 0) all.back() = low_bits(n_ % word_bits);
  bits.assign(static_cast<std::size_t>(row_bytes_), 0);
  rows.write_bits(all.data(), family, bits.data());
  lay_out(bits.data(), 1, ones_.data());
}

const std::uint8_t* LaidOut::from(std::int64_t group, std::int64_t first) const {
  return laid_out_.data() + group * group_stride_ + size_of(first);
}

std::int64_t LaidOut::size_of(std::int64_t count) const {
  switch (family_) {
    case Family::xnor:
      return blocks_for(count) * filter_block * row_bytes_;
    case Family::xnor_row:
      return count * row_bytes_;
    case Family::table:
    case Family::byte_table:
    case Family::vnni:
      return table_size(count, row_bytes_);
    case Family::dense:
    case Family::grouped:
    case Family::depthwise:
      return count * n_ * static_cast<std::int64_t>(sizeof(float));
    case Family::float_row:
    case Family::byte_row:
      return gemv_size(count, row_bytes_);
  }
  return 0;
}

// A filter's rows become one, their sum.
void LaidOut::add_rows(std::int64_t filters, float* out) const {
  if (per_filter_ == 1) return;
  for (std::int64_t filter = 0; filter < filters; ++filter) {
    for (std::int64_t i = 0; i < n_; ++i) {
      out[filter * n_ + i] = out[2 * filter * n_ + i] + out[(2 * filter + 1) * n_ + i];
    }
  }
}

void LaidOut::lay_out(const std::uint8_t* rows, std::int64_t count, std::uint8_t* out) const {
  switch (family_) {
    case Family::xnor:
      return lay_out_words(reinterpret_cast<const Word*>(rows), count, row_bytes_ / 8,
                           reinterpret_cast<Word*>(out));
    case Family::xnor_row:
      std::memcpy(out, rows, static_cast<std::size_t>(count * row_bytes_));
      return;
    case Family::table:
    case Family::byte_table:
    case Family::vnni:
      return lay_out_table(rows, count, row_bytes_, out);
    case Family::dense:
    case Family::grouped:
      return lay_out_dense(rows, count, n_, reinterpret_cast<float*>(out));
    case Family::depthwise:
      lay_out_dense(rows, count, n_, reinterpret_cast<float*>(out));
      return add_rows(count / per_filter_, reinterpret_cast<float*>(out));
    case Family::float_row:
    case Family::byte_row:
      return lay_out_gemv(rows, count, row_bytes_, out);
  }
}

}  // namespace equibit
