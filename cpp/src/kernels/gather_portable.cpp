// Rows of a panel, element by element.

#include "gather_levels.h"

namespace equibit {

namespace {

void gather_32(const Gather& gather, const std::uint32_t* planes, std::int64_t stride, std::int64_t count,
               std::uint32_t* panel) {
  for (std::int64_t plane = 0; plane < count; ++plane) {
    const std::uint32_t* from = planes + plane * stride;
    for (std::int32_t lane = 0; lane < gather.lanes; ++lane) {
      const std::int32_t source = gather.source[lane];
      *panel++ = source < 0 ? 0 : from[source];
    }
  }
}

// out[filter][lane] of one group.
void grouped_filter(const Tap* taps, std::int64_t count, const Grouped& layer, const float* planes,
                    const float* weights, float* out) {
  for (std::int32_t lane = 0; lane < taps[0].gather.lanes; ++lane) {
    float sum = 0;
    for (std::int64_t tap = 0; tap < count; ++tap) {
      const std::int32_t source = taps[tap].gather.source[lane];
      if (source < 0) continue;
      for (std::int64_t channel = 0; channel < layer.channels; ++channel) {
        sum += weights[tap * layer.channels + channel] *
               planes[channel * layer.stride + taps[tap].offset + source];
      }
    }
    *out++ = sum;
  }
}

void grouped_tile_f32(const Tap* taps, std::int64_t count, const Grouped& layer, const float* planes,
                      float* out) {
  const std::int64_t lanes = taps[0].gather.lanes;
  for (std::int64_t group = 0; group < layer.groups; ++group) {
    for (std::int64_t filter = 0; filter < layer.filters; ++filter, out += lanes) {
      const float* weights = layer.weights + group * layer.weight_stride + filter * count * layer.channels;
      grouped_filter(taps, count, layer, planes + group * layer.channels * layer.stride, weights, out);
    }
  }
}

void gather_64(const Gather& gather, const Word* planes, const Word* outside, std::int64_t stride,
               std::int64_t count, Word* panel) {
  for (std::int64_t plane = 0; plane < count; ++plane) {
    const Word* from = planes + plane * stride;
    for (std::int32_t lane = 0; lane < gather.lanes; ++lane) {
      const std::int32_t source = gather.source[lane];
      *panel++ = source < 0 ? outside[plane] : from[source];
    }
  }
}

}  // namespace

void fill_gather_portable(TileKernels& tiles) {
  tiles.windows_32 = tiles.windows_64 = {0, 0};
  tiles.gather_32 = gather_32;
  tiles.grouped_tile_f32 = grouped_tile_f32;
  tiles.gather_64 = gather_64;
}

}  // namespace equibit
