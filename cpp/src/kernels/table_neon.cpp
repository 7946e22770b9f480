// Tables with NEON: 4 places of floats or 8 of 16-bit integers to a register.

#include <arm_neon.h>

#include "dense.h"
#include "table.h"
#include "table_levels.h"

namespace equibit {

namespace {

struct Floats {
  using Input = float;
  using Sum = float;
  using Vector = float32x4_t;
  static constexpr int vectors = 4, lanes = 16, filters = 4;

  static Vector load(const void* place) { return vld1q_f32(static_cast<const float*>(place)); }
  static void store(void* place, Vector v) { vst1q_f32(static_cast<float*>(place), v); }
  static Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
  static Vector subtract(Vector a, Vector b) { return vsubq_f32(a, b); }
  static Vector negate(Vector v) { return vnegq_f32(v); }
  static Vector broadcast(float value) { return vdupq_n_f32(value); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return vfmaq_f32(a, b, c); }

  static void load_rows(const float* panel, std::int64_t group, std::int64_t lanes, std::int64_t lane,
                        Vector* x) {
    for (int i = 0; i < 4; ++i) x[i] = load(panel + (4 * group + i) * lanes + lane);
  }
  static Vector zero() { return vdupq_n_f32(0); }
  static void add_to(float* sums, Vector v, bool first) { store(sums, first ? v : add(load(sums), v)); }
};

template <int registers>
struct Words {
  using Input = std::int8_t;
  using Sum = std::int32_t;
  using Vector = int16x8_t;
  static constexpr int vectors = registers, lanes = 8 * registers, filters = registers > 2 ? 4 : 8;

  static Vector load(const void* place) { return vld1q_s16(static_cast<const std::int16_t*>(place)); }
  static void store(void* place, Vector v) { vst1q_s16(static_cast<std::int16_t*>(place), v); }
  static Vector add(Vector a, Vector b) { return vaddq_s16(a, b); }
  static Vector subtract(Vector a, Vector b) { return vsubq_s16(a, b); }
  static Vector negate(Vector v) { return vnegq_s16(v); }

  static void load_rows(const std::int8_t* panel, std::int64_t group, std::int64_t lanes, std::int64_t lane,
                        Vector* x) {
    const int8x8x4_t quads = vld4_s8(panel + 4 * (group * lanes + lane));
    for (int i = 0; i < 4; ++i) x[i] = vmovl_s8(quads.val[i]);
  }
  static Vector zero() { return vdupq_n_s16(0); }
  static void add_to(std::int32_t* sums, Vector v, bool first) {
    int32x4_t low = vmovl_s16(vget_low_s16(v)), high = vmovl_s16(vget_high_s16(v));
    if (!first) {
      low = vaddq_s32(low, vld1q_s32(sums));
      high = vaddq_s32(high, vld1q_s32(sums + 4));
    }
    vst1q_s32(sums, low);
    vst1q_s32(sums + 4, high);
  }
};

}  // namespace

void fill_table_neon(TileKernels& tiles) {
  tiles.dense_tile_f32 = dense_tile<Floats>;
  tiles.table_tile_f32 = table_tile<Floats, Floats>;
  tiles.table_rows_f32 = table_rows<Floats, Floats>;
  tiles.table_tile_i8 = table_tile<Words<4>, Words<2>>;
  tiles.table_rows_i8 = table_rows<Words<4>, Words<2>>;
}

}  // namespace equibit
