// Depthwise convolutions in plain loops: the reference of every level.

#include "depthwise_levels.h"

namespace equibit {

namespace {

float sum_at(const Depthwise& layer, const float* plane, const float* weights, std::int64_t out_row,
             std::int64_t out_column) {
  float sum = 0;
  for (std::int64_t down = 0; down < layer.kernel.height; ++down) {
    const std::int64_t row =
        out_row * layer.stride.height + down * layer.dilation.height - layer.padding.height;
    if (row < 0 || row >= layer.input.height) continue;
    for (std::int64_t across = 0; across < layer.kernel.width; ++across) {
      const std::int64_t column =
          out_column * layer.stride.width + across * layer.dilation.width - layer.padding.width;
      if (column < 0 || column >= layer.input.width) continue;
      sum += weights[down * layer.kernel.width + across] * plane[row * layer.input.width + column];
    }
  }
  return sum;
}

float activate(const Epilogue& epilogue, std::int64_t map, float y) {
  switch (epilogue.activation) {
    case Activation::relu:
      return y < 0 ? 0 : y;
    case Activation::prelu:
      return y < 0 ? y * epilogue.slope[map] : y;
    case Activation::hardtanh:
      return y < epilogue.low ? epilogue.low : y > epilogue.high ? epilogue.high : y;
    default:
      return y;
  }
}

void depthwise_f32(const Depthwise& layer, const Epilogue& epilogue, const float* planes,
                   const float* residual, float* y) {
  std::int64_t at = 0;
  for (std::int64_t map = 0; map < layer.maps; ++map) {
    const float* plane = planes + map / layer.per_plane * layer.input.height * layer.input.width;
    for (std::int64_t row = 0; row < layer.output.height; ++row) {
      for (std::int64_t column = 0; column < layer.output.width; ++column, ++at) {
        float value = sum_at(layer, plane, weights_of(layer, map), row, column) * epilogue.scale[map];
        if (epilogue.bias != nullptr) value += epilogue.bias[map];
        if (residual != nullptr) value += residual[at];
        y[at] = activate(epilogue, map, value);
      }
    }
  }
}

}  // namespace

void fill_depthwise_portable(TileKernels& tiles) { tiles.depthwise_f32 = depthwise_f32; }

}  // namespace equibit
