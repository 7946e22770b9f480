// The tile kernels in plain loops: the reference of every level.

#include "tiles_portable.h"

#include "depthwise_levels.h"
#include "finish_levels.h"
#include "gather_levels.h"
#include "layouts.h"

namespace equibit {

namespace {

void fold_words(Word* panel, std::int64_t rows, std::int64_t lanes) {
  for (std::int64_t i = lanes; i < rows * lanes; ++i) panel[i] ^= panel[i - lanes];
}

void fold_few_bits(Word* panel, std::int64_t rows, std::int64_t lanes, std::int64_t together,
                   std::int64_t bits) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      const Word part = panel[row * lanes + lane] << (row % together * bits);
      Word& word = panel[row / together * lanes + lane];
      word = row % together == 0 ? part : word | part;
    }
  }
  fold_words(panel, (rows + together - 1) / together, lanes);
}

// Bits that differ are where the XOR of the folded words changes from one word to the next.
void xnor_tile(const Word* panel, std::int64_t words, std::int64_t lanes, const Word* filters,
               std::int64_t blocks, std::int32_t* out) {
  for (std::int64_t filter = 0; filter < filter_block * blocks; ++filter) {
    const Word* weights = filters + (filter - filter % filter_block) * words + filter % filter_block;
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      Word before = 0;
      std::int32_t unequal = 0;
      for (std::int64_t word = 0; word < words; ++word) {
        const Word parity = panel[word * lanes + lane] ^ weights[word * filter_block];
        unequal += popcount64(parity ^ before);
        before = parity;
      }
      *out++ = unequal;
    }
  }
}

// out[filter][lane] = sum over k of +-input(k, lane); byte_of(filter, byte) are the weights of eight k.
template <typename Sum, typename Input, typename ByteOf>
void sum_tile(std::int64_t bytes, std::int64_t lanes, std::int64_t count, Input input, ByteOf byte_of,
              Sum* out) {
  for (std::int64_t filter = 0; filter < count; ++filter) {
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      Sum sum = 0;
      for (std::int64_t k = 0; k < 8 * bytes; ++k) {
        const Sum value = input(k, lane);
        sum += byte_of(filter, k / 8) >> (k % 8) & 1 ? value : -value;
      }
      *out++ = sum;
    }
  }
}

std::int32_t quad_value(const std::int8_t* panel, std::int64_t lanes, std::int64_t k, std::int64_t lane) {
  return panel[4 * (k / 4 * lanes + lane) + k % 4];
}

void table_tile_f32(const float* panel, std::int64_t bytes, std::int64_t lanes, const std::uint8_t* filters,
                    std::int64_t count, void*, float* out) {
  sum_tile(
      bytes, lanes, count, [=](std::int64_t k, std::int64_t lane) { return panel[k * lanes + lane]; },
      [=](std::int64_t filter, std::int64_t byte) { return filters[table_place(filter, byte, bytes)]; }, out);
}

// Of table_tile_i8 and of vnni_tile.
void quad_tile(const std::int8_t* panel, std::int64_t bytes, std::int64_t lanes, const std::uint8_t* filters,
               std::int64_t count, void*, std::int32_t* out) {
  sum_tile(
      bytes, lanes, count,
      [=](std::int64_t k, std::int64_t lane) { return quad_value(panel, lanes, k, lane); },
      [=](std::int64_t filter, std::int64_t byte) { return filters[table_place(filter, byte, bytes)]; }, out);
}

// Adds each row's sums; input(k, lane) is the panel.
template <typename Sum, typename Input>
void add_rows(std::int64_t bytes, std::int64_t lanes, const std::uint8_t* filters, std::int64_t count,
              const TapRows& to, Input input, Sum* sums) {
  for (std::int64_t filter = 0; filter < count; ++filter) {
    for (std::int64_t row = 0; row < to.rows; ++row) {
      for (std::int64_t lane = 0; lane < lanes; ++lane) {
        const auto byte_of = [=](std::int64_t, std::int64_t byte) {
          return filters[table_place(filter, row * bytes + byte, to.rows * bytes)];
        };
        Sum sum;
        sum_tile(bytes, 1, 1, [=](std::int64_t k, std::int64_t) { return input(k, lane); }, byte_of, &sum);
        sums[filter * to.stride + row * to.step + lane] += sum;
      }
    }
  }
}

void table_rows_f32(const float* panel, std::int64_t bytes, std::int64_t lanes, const std::uint8_t* filters,
                    std::int64_t count, const TapRows& to, void*, float* sums) {
  add_rows(
      bytes, lanes, filters, count, to,
      [=](std::int64_t k, std::int64_t lane) { return panel[k * lanes + lane]; }, sums);
}

void table_rows_i8(const std::int8_t* panel, std::int64_t bytes, std::int64_t lanes,
                   const std::uint8_t* filters, std::int64_t count, const TapRows& to, void*,
                   std::int32_t* sums) {
  add_rows(
      bytes, lanes, filters, count, to,
      [=](std::int64_t k, std::int64_t lane) { return quad_value(panel, lanes, k, lane); }, sums);
}

template <typename Value, typename Sum>
void gemv(const Value* x, std::int64_t bytes, const std::uint8_t* filters, std::int64_t count, void*,
          Sum* y) {
  const auto* words = reinterpret_cast<const std::uint16_t*>(filters);
  for (std::int64_t filter = 0; filter < count; ++filter) {
    Sum sum = 0;
    for (std::int64_t k = 0; k < 8 * bytes; ++k) {
      const std::uint16_t word = words[gemv_place(filter, k / gemv_inputs, gemv_columns(bytes))];
      const auto value = static_cast<Sum>(x[k]);
      sum += word >> (k % gemv_inputs) & 1 ? value : -value;
    }
    y[filter] = sum;
  }
}

void gemv_xnor(const Word* x, std::int64_t words, const Word* rows, std::int64_t count, std::int32_t* y) {
  for (std::int64_t filter = 0; filter < count; ++filter) {
    std::int32_t unequal = 0;
    for (std::int64_t word = 0; word < words; ++word) unequal += popcount64(x[word] ^ *rows++);
    y[filter] = unequal;
  }
}

void dense_tile_f32(const float* panel, std::int64_t k, std::int64_t lanes, const float* weights,
                    std::int64_t count, float* out) {
  for (std::int64_t filter = 0; filter < count; ++filter) {
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      float sum = 0;
      for (std::int64_t i = 0; i < k; ++i) sum += weights[filter * k + i] * panel[i * lanes + lane];
      *out++ = sum;
    }
  }
}

void pack_planes(const float* x, std::int64_t channels, std::int64_t places, Word* planes) {
  for (std::int64_t first = 0; first < channels; first += word_bits) {
    for (std::int64_t place = 0; place < places; ++place) {
      Word word = 0;
      for (std::int64_t channel = first; channel < channels && channel < first + word_bits; ++channel) {
        word |= Word{x[channel * places + place] >= 0} << (channel - first);
      }
      *planes++ = word;
    }
  }
}

}  // namespace

TileKernels portable_tiles() {
  TileKernels tiles{};
  tiles.fold_words = fold_words;
  tiles.fold_few_bits = fold_few_bits;
  tiles.xnor_tile = xnor_tile;
  tiles.table_tile_f32 = table_tile_f32;
  tiles.table_rows_f32 = table_rows_f32;
  tiles.table_tile_i8 = quad_tile;
  tiles.table_rows_i8 = table_rows_i8;
  tiles.vnni_tile = quad_tile;
  tiles.vnni_filters = 0;
  tiles.gemv_f32 = gemv<float, float>;
  tiles.gemv_i8 = gemv<std::int8_t, std::int32_t>;
  tiles.gemv_xnor = gemv_xnor;
  tiles.dense_tile_f32 = dense_tile_f32;
  tiles.pack_planes = pack_planes;
  fill_depthwise_portable(tiles);
  fill_gather_portable(tiles);
  fill_finish_portable(tiles);
  return tiles;
}

}  // namespace equibit
