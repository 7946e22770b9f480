// Depthwise convolutions with NEON: four columns a step; those at a border by way of memory.

#include <arm_neon.h>

#include "depthwise.h"
#include "depthwise_levels.h"
#include "floats_neon.h"

namespace equibit {

namespace {

struct Neon : FloatsNeon {
  struct Mask {
    std::int64_t first, last;
    bool whole() const { return first == 0 && last == lanes; }
  };

  static Mask between(std::int64_t first, std::int64_t last) {
    const auto lane = [](std::int64_t at) { return std::min(std::max<std::int64_t>(at, 0), lanes); };
    return {lane(first), lane(last)};
  }
  static Floats load(const float* from, Mask mask) {
    if (mask.whole()) return vld1q_f32(from);
    float values[lanes] = {};
    for (std::int64_t i = mask.first; i < mask.last; ++i) values[i] = from[i];
    return vld1q_f32(values);
  }
  static void store(float* to, Floats values, Mask mask) {
    if (mask.whole()) return vst1q_f32(to, values);
    float stored[lanes];
    vst1q_f32(stored, values);
    for (std::int64_t i = mask.first; i < mask.last; ++i) to[i] = stored[i];
  }
  static Floats even(Floats low, Floats high) { return vuzp1q_f32(low, high); }
  static Floats odd(Floats low, Floats high) { return vuzp2q_f32(low, high); }
  static Floats shift(Floats v, float value) { return vextq_f32(v, vdupq_n_f32(value), 1); }
};

}  // namespace

void fill_depthwise_neon(TileKernels& tiles) { tiles.depthwise_f32 = depthwise_f32<Neon, Neon>; }

}  // namespace equibit
