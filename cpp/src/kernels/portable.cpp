// Plain loops over words: the reference every other level is tested against, and what runs where no other
// level does.
//
//   dot(x, w)       = n             - 2 popcount(x XOR w)              weights -1, +1
//   dot(x, w, mask) = popcount(mask) - 2 popcount((x XOR w) AND mask)  weights -1, 0, +1
//
// Padding bits are zero in x, w and mask, so they cancel in both.

#include <algorithm>

#include "equibit/kernels.h"
#include "select_levels.h"
#include "tiles_portable.h"

namespace equibit {

namespace {

template <typename Value>
Word pack_word(const Value* values, std::int64_t count) {
  Word word = 0;
  for (std::int64_t bit = 0; bit < count; ++bit) word |= Word{values[bit] >= 0} << bit;
  return word;
}

template <typename Value>
void pack_bits_portable(const Value* values, std::int64_t rows, std::int64_t n, Word* packed) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t first = 0; first < n; first += word_bits) {
      *packed++ = pack_word(values + first, std::min(word_bits, n - first));
    }
    values += n;
  }
}

template <typename Value>
void unpack_word(Word word, std::int64_t count, Value* values) {
  for (std::int64_t bit = 0; bit < count; ++bit) {
    values[bit] = static_cast<Value>(2 * static_cast<int>(word >> bit & 1) - 1);
  }
}

template <typename Value>
void unpack_bits_portable(const Word* packed, std::int64_t rows, std::int64_t n, Value* values) {
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t first = 0; first < n; first += word_bits) {
      unpack_word(*packed++, std::min(word_bits, n - first), values + first);
    }
    values += n;
  }
}

// Dot product of n activations and the n weights that start at word `offset` of the filters.
template <bool masked>
std::int32_t xor_popcount_dot(const Word* x, Filters w, std::int64_t offset, std::int64_t n) {
  std::int32_t terms = masked ? 0 : static_cast<std::int32_t>(n);
  std::int32_t unequal = 0;
  for (std::int64_t i = 0; i < words_for(n); ++i) {
    Word difference = x[i] ^ w.signs[offset + i];
    if constexpr (masked) {
      terms += popcount64(w.mask[offset + i]);
      difference &= w.mask[offset + i];
    }
    unequal += popcount64(difference);
  }
  return terms - 2 * unequal;
}

// Sum of those weights: their dot product with activations that are all +1.
template <bool masked>
std::int32_t weight_sum(Filters w, std::int64_t offset, std::int64_t n) {
  std::int32_t terms = masked ? 0 : static_cast<std::int32_t>(n);
  std::int32_t positive = 0;
  for (std::int64_t i = 0; i < words_for(n); ++i) {
    if constexpr (masked) terms += popcount64(w.mask[offset + i]);
    positive += popcount64(w.signs[offset + i]);
  }
  return 2 * positive - terms;
}

template <bool masked>
void linear(const LinearShape& shape, const Word* x, Filters w, std::int32_t* y) {
  const std::int64_t words = words_for(shape.n);
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    for (std::int64_t filter = 0; filter < shape.filters; ++filter) {
      *y++ = xor_popcount_dot<masked>(x + row * words, w, filter * words, shape.n);
    }
  }
}

bool inside(std::int64_t place, std::int64_t size) { return 0 <= place && place < size; }

// One output: the taps of `filter` at (top, left) of image `batch`.
template <bool masked>
std::int32_t convolve_at(const Conv2dShape& shape, const Word* x, Filters w, std::int64_t batch,
                         std::int64_t filter, std::int64_t top, std::int64_t left) {
  const std::int64_t words = words_for(shape.channels);
  const std::int64_t group = filter / (shape.filters / shape.groups);
  std::int64_t offset = filter * shape.kernel.height * shape.kernel.width * words;
  std::int32_t sum = 0;
  for (std::int64_t tap_row = 0; tap_row < shape.kernel.height; ++tap_row) {
    const std::int64_t row = top + tap_row * shape.dilation.height;
    for (std::int64_t tap_column = 0; tap_column < shape.kernel.width; ++tap_column) {
      const std::int64_t column = left + tap_column * shape.dilation.width;
      if (inside(row, shape.input.height) && inside(column, shape.input.width)) {
        const std::int64_t pixel = (batch * shape.input.height + row) * shape.input.width + column;
        sum +=
            xor_popcount_dot<masked>(x + (pixel * shape.groups + group) * words, w, offset, shape.channels);
      } else {
        sum += shape.pad_value * weight_sum<masked>(w, offset, shape.channels);
      }
      offset += words;
    }
  }
  return sum;
}

template <bool masked>
void conv2d(const Conv2dShape& shape, const Word* x, Filters w, std::int32_t* y) {
  for (std::int64_t batch = 0; batch < shape.batch; ++batch) {
    for (std::int64_t filter = 0; filter < shape.filters; ++filter) {
      for (std::int64_t row = 0; row < shape.output.height; ++row) {
        const std::int64_t top = row * shape.stride.height - shape.padding.height;
        for (std::int64_t column = 0; column < shape.output.width; ++column) {
          const std::int64_t left = column * shape.stride.width - shape.padding.width;
          *y++ = convolve_at<masked>(shape, x, w, batch, filter, top, left);
        }
      }
    }
  }
}

void xnor_linear_portable(const LinearShape& shape, const Word* x, Filters w, std::int32_t* y) {
  (w.mask ? linear<true> : linear<false>)(shape, x, w, y);
}

void xnor_conv2d_portable(const Conv2dShape& shape, const Word* x, Filters w, std::int32_t* y) {
  (w.mask ? conv2d<true> : conv2d<false>)(shape, x, w, y);
}

}  // namespace

void fill_portable(Kernels& kernels) {
  kernels.pack_f32 = pack_bits_portable<float>;
  kernels.pack_f64 = pack_bits_portable<double>;
  kernels.pack_i8 = pack_bits_portable<std::int8_t>;
  kernels.unpack_f32 = unpack_bits_portable<float>;
  kernels.unpack_f64 = unpack_bits_portable<double>;
  kernels.unpack_i8 = unpack_bits_portable<std::int8_t>;
  kernels.xnor_linear = xnor_linear_portable;
  kernels.xnor_conv2d = xnor_conv2d_portable;
  fill_select_portable(kernels);
  kernels.tiles = portable_tiles();
}

}  // namespace equibit
