// Depthwise convolutions: every output map is the sum of one input map at the taps of a kernel. Lanes are
// neighbouring columns; they read the map itself, under masks that are zero outside, so that there is neither
// a panel nor a border. A sum meets its epilogue in registers.
//
// `Isa` gives the vector Floats of `lanes` values and a Mask of some of them, and on them: between(first,
// last), the lanes first .. last - 1, load(from, mask) with zeros elsewhere, store(to, floats, mask),
// all(value), add, mul, fma, below and above as in finish.h, even(low, high) and odd(low, high), every other
// of two vectors' values, and shift(v, value), which drops the first value and appends one.
#pragma once

#include <algorithm>

#include "finish.h"

namespace equibit {

// Output columns first .. first + lanes - 1 at one column of taps.
template <typename Isa, int stride>
class Columns {
 public:
  Columns() = default;
  Columns(const Depthwise& layer, std::int64_t first, std::int64_t tap)
      : offset_(first * stride + tap * layer.dilation.width - layer.padding.width),
        low_(Isa::between(-offset_, layer.input.width - offset_)),
        high_(Isa::between(-offset_ - Isa::lanes, layer.input.width - offset_ - Isa::lanes)) {}

  typename Isa::Floats read(const float* row) const {
    const auto low = Isa::load(row + offset_, low_);
    if constexpr (stride == 1) return low;
    return Isa::even(low, Isa::load(row + offset_ + Isa::lanes, high_));
  }

 private:
  std::int64_t offset_;
  typename Isa::Mask low_, high_;
};

// The same at three neighbouring columns of taps.
template <typename Isa, int stride>
class ThreeColumns {
 public:
  ThreeColumns(const Depthwise& layer, std::int64_t first) {
    for (int tap = 0; tap < 3; ++tap) columns_[tap] = Columns<Isa, stride>(layer, first, tap);
  }
  void read(const float* row, typename Isa::Floats* x) const {
#pragma GCC unroll 3
    for (int tap = 0; tap < 3; ++tap) x[tap] = columns_[tap].read(row);
  }

 private:
  Columns<Isa, stride> columns_[3];
};

// Two steps apart, the first and the last column of taps read the same values, one lane apart.
template <typename Isa>
class ThreeColumns<Isa, 2> {
 public:
  ThreeColumns(const Depthwise& layer, std::int64_t first)
      : offset_(2 * first - layer.padding.width),
        low_(Isa::between(-offset_, layer.input.width - offset_)),
        high_(Isa::between(-offset_ - Isa::lanes, layer.input.width - offset_ - Isa::lanes)),
        more_(offset_ + 2 * Isa::lanes < layer.input.width) {}

  void read(const float* row, typename Isa::Floats* x) const {
    const float* from = row + offset_;
    const auto low = Isa::load(from, low_), high = Isa::load(from + Isa::lanes, high_);
    x[0] = Isa::even(low, high);
    x[1] = Isa::odd(low, high);
    x[2] = Isa::shift(x[0], more_ ? from[2 * Isa::lanes] : 0.0F);
  }

 private:
  std::int64_t offset_;
  typename Isa::Mask low_, high_;
  bool more_;
};

// From the sums of some columns to a row of an output map. Loops that are made for each activation are a
// tenth faster than those that ask for it, which is what `any` does.
enum class Known { none, relu, prelu, hardtanh, any };

template <typename Isa, Known known>
class MapEnd {
 public:
  using Floats = typename Isa::Floats;

  MapEnd(const Depthwise& layer, const Epilogue& epilogue, std::int64_t map, std::int64_t first,
         const float* residual, float* y)
      : epilogue_(epilogue),
        mask_(Isa::between(0, layer.output.width - first)),
        scale_(Isa::all(epilogue.scale[map])),
        bias_(Isa::all(epilogue.bias == nullptr ? 0 : epilogue.bias[map])),
        slope_(Isa::all(epilogue.activation == Activation::prelu ? epilogue.slope[map] : 0)),
        width_(layer.output.width),
        residual_(residual == nullptr ? nullptr : residual + first),
        y_(y + first) {}

  void write(std::int64_t row, Floats sum) const {
    Floats y = Isa::add(Isa::mul(sum, scale_), bias_);
    if (residual_ != nullptr) y = Isa::add(y, Isa::load(residual_ + row * width_, mask_));
    Isa::store(y_ + row * width_, activated(y), mask_);
  }

 private:
  Floats activated(Floats y) const {
    if constexpr (known != Known::any) {
      return activate<Isa, static_cast<Activation>(known)>(y, slope_, epilogue_);
    }
    switch (epilogue_.activation) {
      case Activation::relu:
        return activate<Isa, Activation::relu>(y, slope_, epilogue_);
      case Activation::prelu:
        return activate<Isa, Activation::prelu>(y, slope_, epilogue_);
      case Activation::hardtanh:
        return activate<Isa, Activation::hardtanh>(y, slope_, epilogue_);
      default:
        return y;
    }
  }

  const Epilogue epilogue_;
  const typename Isa::Mask mask_;
  const Floats scale_, bias_, slope_;
  const std::int64_t width_;
  const float* residual_;
  float* y_;
};

template <typename Isa>
typename Isa::Floats sum_three(const typename Isa::Floats* x, const typename Isa::Floats* weights) {
  return Isa::fma(x[2], weights[2], Isa::fma(x[1], weights[1], Isa::mul(x[0], weights[0])));
}

// Rows first .. last - 1 of a map for a 3x3 kernel without dilation, downwards: an input row is read once for
// all the output rows that it belongs to.
template <typename Isa, int stride, typename End>
void sum_3x3(const Depthwise& layer, const float* map, const float* weights, std::int64_t column,
             std::int64_t first, std::int64_t last, const End& end) {
  using Floats = typename Isa::Floats;
  const ThreeColumns<Isa, stride> columns(layer, column);
  Floats w[9], x[3];
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap) w[tap] = Isa::all(weights[tap]);
  const auto read = [&](std::int64_t row) {
    if (0 <= row && row < layer.input.height) {
      columns.read(map + row * layer.input.width, x);
    } else {
      x[0] = x[1] = x[2] = Isa::all(0);
    }
  };
  std::int64_t row = first * stride - layer.padding.height;
  read(row++);
  Floats sum = sum_three<Isa>(x, w);
  if constexpr (stride == 2) {
    for (std::int64_t out = first; out < last; ++out) {
      read(row++);
      sum = Isa::add(sum, sum_three<Isa>(x, w + 3));
      read(row++);
      end.write(out, Isa::add(sum, sum_three<Isa>(x, w + 6)));
      sum = sum_three<Isa>(x, w);
    }
  } else {
    read(row++);
    sum = Isa::add(sum, sum_three<Isa>(x, w + 3));
    Floats next = sum_three<Isa>(x, w);
    for (std::int64_t out = first; out < last; ++out) {
      read(row++);
      end.write(out, Isa::add(sum, sum_three<Isa>(x, w + 6)));
      sum = Isa::add(next, sum_three<Isa>(x, w + 3));
      next = sum_three<Isa>(x, w);
    }
  }
}

// The same for any kernel; `width` is that of one without dilation, or 0.
template <typename Isa, int stride, int width, typename End>
void sum_any(const Depthwise& layer, const float* map, const float* weights, std::int64_t column,
             std::int64_t first, std::int64_t last, const End& end) {
  const std::int64_t taps = width == 0 ? layer.kernel.width : width;
  Columns<Isa, stride> columns[width == 0 ? most_depthwise_width : width];
#pragma GCC unroll 8
  for (std::int64_t tap = 0; tap < taps; ++tap) columns[tap] = Columns<Isa, stride>(layer, column, tap);
  for (std::int64_t out = first; out < last; ++out) {
    auto sum = Isa::all(0);
    for (std::int64_t down = 0; down < layer.kernel.height; ++down) {
      const std::int64_t row =
          out * layer.stride.height + down * layer.dilation.height - layer.padding.height;
      if (row < 0 || row >= layer.input.height) continue;
      const float* from = map + row * layer.input.width;
      const float* of_row = weights + down * taps;
      auto part = Isa::mul(columns[0].read(from), Isa::all(of_row[0]));  // no row waits for the one before
#pragma GCC unroll 8
      for (std::int64_t tap = 1; tap < taps; ++tap) {
        part = Isa::fma(columns[tap].read(from), Isa::all(of_row[tap]), part);
      }
      sum = Isa::add(sum, part);
    }
    end.write(out, sum);
  }
}

// Bands of rows that stay in the first cache, in each all columns.
template <typename Isa, int stride, int width, Known known>
void depthwise_maps(const Depthwise& layer, const Epilogue& epilogue, const float* planes,
                    const float* residual, float* y) {
  constexpr std::int64_t cached = 4096;  // floats
  const std::int64_t band = std::max<std::int64_t>(8, cached / (layer.input.width * stride));
  const std::int64_t in_size = layer.input.height * layer.input.width;
  const std::int64_t out_size = layer.output.height * layer.output.width;
  for (std::int64_t map = 0; map < layer.maps; ++map) {
    const float* plane = planes + map / layer.per_plane * in_size;
    const float* weights = weights_of(layer, map);
    const float* of_map = residual == nullptr ? nullptr : residual + map * out_size;
    for (std::int64_t first = 0; first < layer.output.height; first += band) {
      const std::int64_t last = std::min(first + band, layer.output.height);
      for (std::int64_t column = 0; column < layer.output.width; column += Isa::lanes) {
        const MapEnd<Isa, known> end(layer, epilogue, map, column, of_map, y + map * out_size);
        if constexpr (width == 3) {
          sum_3x3<Isa, stride>(layer, plane, weights, column, first, last, end);
        } else {
          sum_any<Isa, stride, width>(layer, plane, weights, column, first, last, end);
        }
      }
    }
  }
}

using DepthwiseKernel = void (*)(const Depthwise&, const Epilogue&, const float*, const float*, float*);

// Kernels that are usual have loops of their own.
template <typename Isa, int stride>
DepthwiseKernel depthwise_kernel(const Depthwise& layer, Activation activation) {
  constexpr DepthwiseKernel three[] = {
      depthwise_maps<Isa, stride, 3, Known::none>, depthwise_maps<Isa, stride, 3, Known::relu>,
      depthwise_maps<Isa, stride, 3, Known::prelu>, depthwise_maps<Isa, stride, 3, Known::hardtanh>};
  if (layer.dilation.height == 1 && layer.dilation.width == 1) {
    const bool square = layer.kernel.height == 3 && layer.stride.height == stride;
    if (layer.kernel.width == 3 && square) return three[static_cast<std::size_t>(activation)];
    if (layer.kernel.width == 5) return depthwise_maps<Isa, stride, 5, Known::any>;
    if (layer.kernel.width == 7) return depthwise_maps<Isa, stride, 7, Known::any>;
  }
  return depthwise_maps<Isa, stride, 0, Known::any>;
}

// Narrow vectors where they leave fewer lanes empty.
template <typename Wide, typename Narrow>
void depthwise_f32(const Depthwise& layer, const Epilogue& epilogue, const float* planes,
                   const float* residual, float* y) {
  const auto empty = [&](std::int64_t lanes) { return (lanes - layer.output.width % lanes) % lanes; };
  const bool narrow = empty(Narrow::lanes) < empty(Wide::lanes);
  const Activation activation = epilogue.activation;
  const DepthwiseKernel kernel =
      layer.stride.width == 1
          ? (narrow ? depthwise_kernel<Narrow, 1> : depthwise_kernel<Wide, 1>)(layer, activation)
          : (narrow ? depthwise_kernel<Narrow, 2> : depthwise_kernel<Wide, 2>)(layer, activation);
  kernel(layer, epilogue, planes, residual, y);
}

}  // namespace equibit
