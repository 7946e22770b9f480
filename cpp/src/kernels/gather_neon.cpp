// Rows of a panel with NEON: four floats a step where a vector reads neighbours, else one by one; so are
// words.

#include <arm_neon.h>

#include "gather_levels.h"
#include "grouped.h"

namespace equibit {

namespace {

constexpr std::int32_t lanes = 4;
constexpr std::uint32_t all_lanes = 0xF;

bool is_whole(const Part& part) { return part.span == 0 && part.lanes == all_lanes; }

// Reads one part.
struct Direct {
  using Floats = float32x4_t;
  static constexpr std::int32_t lanes = equibit::lanes;

  struct Reader {
    const Part* part;
    bool whole;
  };

  static Reader reader(const Part& part) { return {&part, is_whole(part)}; }
  static Floats read(const Reader& reader, const float* from) {
    if (reader.whole) return vld1q_f32(from);
    float values[lanes] = {};
    for (int lane = 0; lane < lanes; ++lane) {
      if (reader.part->lanes >> lane & 1) {
        values[lane] = from[reader.part->span == 0 ? lane : reader.part->index[lane]];
      }
    }
    return vld1q_f32(values);
  }
  static Floats zero() { return vdupq_n_f32(0); }
  static Floats load(const float* from) { return vld1q_f32(from); }
  static void store(float* to, Floats values) { vst1q_f32(to, values); }
  static Floats broadcast(float value) { return vdupq_n_f32(value); }
  static Floats multiply_add(Floats a, Floats b, Floats c) { return vfmaq_f32(a, b, c); }
};

// One part of the row of every plane; the parts after a vector's first are added to what it wrote.
void gather_part(const Part& part, bool first_part, const float* planes, std::int64_t stride,
                 std::int64_t count, float* to, std::int64_t row) {
  const Direct::Reader reader = Direct::reader(part);
  for (std::int64_t plane = 0; plane < count; ++plane) {
    const float32x4_t values = Direct::read(reader, planes + plane * stride + part.offset);
    auto* place = reinterpret_cast<std::uint32_t*>(to + plane * row);
    const uint32x4_t bits = vreinterpretq_u32_f32(values);
    vst1q_u32(place, first_part ? bits : vorrq_u32(bits, vld1q_u32(place)));
  }
}

void gather_32(const Gather& gather, const std::uint32_t* planes, std::int64_t stride, std::int64_t count,
               std::uint32_t* panel) {
  bool first_part = true;
  for (std::int32_t i = 0; i < gather.part_count; ++i) {
    const Part& part = gather.parts[i];
    gather_part(part, first_part, reinterpret_cast<const float*>(planes), stride, count,
                reinterpret_cast<float*>(panel) + part.vector * lanes, gather.lanes);
    first_part = part.more == 0;
  }
}

}  // namespace

void fill_gather_neon(TileKernels& tiles) {
  tiles.windows_32 = {lanes, lanes};
  tiles.gather_32 = gather_32;
  tiles.grouped_tile_f32 = grouped_tile<Direct>;
}

}  // namespace equibit
