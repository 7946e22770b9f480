// xnor_linear and xnor_conv2d.

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <optional>
#include <utility>

#include "arrays.h"
#include "equibit/repack.h"
#include "errors.h"
#include "functions.h"
#include "levels.h"

namespace equibit {

namespace {

using Bytes = Input<std::uint8_t>;
using Pair = std::pair<std::int64_t, std::int64_t>;

// The rows of w_bits and, for a pruned layer, of w_mask.
struct FilterRows {
  Rows signs;
  std::optional<Rows> mask;

  FilterRows(const Bytes& w_bits, const std::optional<Bytes>& w_mask, std::int64_t n)
      : signs("w_bits", w_bits, 2, n) {
    if (!w_mask) return;
    mask.emplace("w_mask", *w_mask, 2, n);
    check_mask(signs, *mask);
  }

  std::int64_t count() const { return signs.shape()[0]; }
};

Output<std::int32_t> xnor_linear(const Bytes& x_bits, const Bytes& w_bits, std::int64_t n,
                                 const std::optional<Bytes>& w_mask) {
  const Rows x("x_bits", x_bits, 2, n);
  const FilterRows w(w_bits, w_mask, n);
  const LinearShape shape{x.shape()[0], w.count(), n};
  const Shape y_shape{shape.rows, shape.filters};
  const Kernels& kernels = active_kernels();
  std::unique_ptr<std::int32_t[]> y(new std::int32_t[element_count(y_shape)]);
  {
    const nb::gil_scoped_release released;
    kernels.xnor_linear(shape, x.words(), {w.signs.words(), w.mask ? w.mask->words() : nullptr}, y.get());
  }
  return make_array<std::int32_t>(std::move(y), y_shape);
}

// The arguments of a convolution other than its arrays.
struct Convolution {
  std::int64_t in_channels;
  Pair kernel_size;
  Pair stride;
  Pair padding;
  Pair dilation;
  std::int64_t groups;
  std::int32_t pad_value;
};

// Sizes up to this one keep every product of them within 64 bits.
constexpr std::int64_t largest_size = 32767;

void check_size(const char* name, std::int64_t value, std::int64_t least) {
  if (least <= value && value <= largest_size) return;
  raise_input_error(std::string(name) + " is " + std::to_string(value) +
                    ". Allowed: " + std::to_string(least) + " to " + std::to_string(largest_size) + ".");
}

void check_pair(const char* name, Pair pair, std::int64_t least) {
  check_size(name, pair.first, least);
  check_size(name, pair.second, least);
}

void check_arguments(const Convolution& conv) {
  check_size("in_channels", conv.in_channels, 1);
  check_pair("kernel_size", conv.kernel_size, 1);
  check_pair("stride", conv.stride, 1);
  check_pair("padding", conv.padding, 0);
  check_pair("dilation", conv.dilation, 1);
  check_size("groups", conv.groups, 1);
  if (conv.in_channels % conv.groups != 0) {
    raise_input_error("groups = " + std::to_string(conv.groups) +
                      " does not divide in_channels = " + std::to_string(conv.in_channels) + ".");
  }
}

void check_groups(const Shape& x, const Shape& w, std::int64_t groups) {
  if (x.size() == 5 && w.size() == 2 && x[3] == groups && w[0] % groups == 0) return;
  raise_input_error(
      "x_bits of shape " + describe(x) + " and w_bits of shape " + describe(w) +
      " with groups = " + std::to_string(groups) +
      "; needed: x_bits (N, H, W, groups, bytes) and w_bits (M, bytes), M a multiple of groups.");
}

// Outputs along one axis.
std::int64_t output_size(std::int64_t input, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                         std::int64_t dilation) {
  const std::int64_t reach = dilation * (kernel - 1) + 1;
  const std::int64_t room = input + 2 * padding - reach;
  if (room >= 0) return room / stride + 1;
  raise_input_error("an input of " + std::to_string(input) + " with padding " + std::to_string(padding) +
                    " is smaller than the kernel, which reaches over " + std::to_string(reach) + ".");
}

Conv2dShape conv2d_shape(const Convolution& conv, const Rows& x, std::int64_t filters) {
  const Size2 input{x.shape()[1], x.shape()[2]};
  return {
      x.shape()[0],
      conv.groups,
      conv.in_channels / conv.groups,
      filters,
      input,
      {output_size(input.height, conv.kernel_size.first, conv.stride.first, conv.padding.first,
                   conv.dilation.first),
       output_size(input.width, conv.kernel_size.second, conv.stride.second, conv.padding.second,
                   conv.dilation.second)},
      {conv.kernel_size.first, conv.kernel_size.second},
      {conv.stride.first, conv.stride.second},
      {conv.padding.first, conv.padding.second},
      {conv.dilation.first, conv.dilation.second},
      conv.pad_value,
  };
}

std::vector<Word> repack(const Rows& rows, const Conv2dShape& shape) {
  const std::int64_t taps = shape.kernel.height * shape.kernel.width;
  std::vector<Word> words(static_cast<std::size_t>(shape.filters * taps * words_for(shape.channels)));
  repack_filters(rows.words(), shape.filters, taps, shape.channels, words.data());
  return words;
}

Output<std::int32_t> xnor_conv2d(const Bytes& x_bits, const Bytes& w_bits, const std::optional<Bytes>& w_mask,
                                 std::int64_t in_channels, Pair kernel_size, Pair stride, Pair padding,
                                 Pair dilation, std::int64_t groups, std::int32_t pad_value) {
  const Convolution conv{in_channels, kernel_size, stride, padding, dilation, groups, pad_value};
  check_arguments(conv);
  const std::int64_t channels = in_channels / groups;
  check_groups(shape_of(x_bits), shape_of(w_bits), groups);
  const Rows x("x_bits", x_bits, 5, channels);
  const FilterRows w(w_bits, w_mask, kernel_size.first * kernel_size.second * channels);
  const Conv2dShape shape = conv2d_shape(conv, x, w.count());
  const Shape y_shape{shape.batch, shape.filters, shape.output.height, shape.output.width};
  const std::vector<Word> signs = repack(w.signs, shape);
  const std::vector<Word> mask = w.mask ? repack(*w.mask, shape) : std::vector<Word>();
  const Kernels& kernels = active_kernels();
  std::unique_ptr<std::int32_t[]> y(new std::int32_t[element_count(y_shape)]);
  {
    const nb::gil_scoped_release released;
    kernels.xnor_conv2d(shape, x.words(), {signs.data(), w.mask ? mask.data() : nullptr}, y.get());
  }
  return make_array<std::int32_t>(std::move(y), y_shape);
}

}  // namespace

void define_xnor(nb::module_& module) {
  module.def("xnor_linear", xnor_linear, nb::arg("x_bits").noconvert(), nb::arg("w_bits").noconvert(),
             nb::arg("n"), nb::arg("w_mask").noconvert().none());
  module.def("xnor_conv2d", xnor_conv2d, nb::arg("x_bits").noconvert(), nb::arg("w_bits").noconvert(),
             nb::arg("w_mask").noconvert().none(), nb::arg("in_channels"), nb::arg("kernel_size"),
             nb::arg("stride"), nb::arg("padding"), nb::arg("dilation"), nb::arg("groups"),
             nb::arg("pad_value"));
}

}  // namespace equibit
