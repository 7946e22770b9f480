// A row of inputs with NEON: tables of three inputs, eight sums in two registers that are looked up byte by
// byte.

#include <arm_neon.h>

#include "gemv.h"
#include "gemv_levels.h"

namespace equibit {

namespace {

struct Neon {
  using Vector = float32x4_t;
  using Indices = uint32x4_t;
  static constexpr int lanes = 4, bits = 3, blocks = 1;

  static Vector zero() { return vdupq_n_f32(0); }
  static Vector broadcast(float value) { return vdupq_n_f32(value); }
  static Vector load(const float* place) { return vld1q_f32(place); }
  static void store(float* place, Vector v) { vst1q_f32(place, v); }
  static Indices load_indices(const void* place) {
    return vreinterpretq_u32_u8(vld1q_u8(static_cast<const std::uint8_t*>(place)));
  }
  template <int n>
  static Indices shift(Indices v) {
    if constexpr (n == 0) {
      return v;
    } else {
      return vshrq_n_u32(v, n);
    }
  }
  // The four bytes of entry n are 4 n .. 4 n + 3.
  static Vector look_up(const float* table, Indices v) {
    const uint32x4_t entry = vandq_u32(v, vdupq_n_u32(entries<Neon> - 1));
    const uint32x4_t places = vmlaq_n_u32(vdupq_n_u32(0x03020100), entry, 0x04040404);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(table);
    const uint8x16x2_t sums = {{vld1q_u8(bytes), vld1q_u8(bytes + 16)}};
    return vreinterpretq_f32_u8(vqtbl2q_u8(sums, vreinterpretq_u8_u32(places)));
  }
  static Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return vfmaq_f32(a, b, c); }
  static Vector add_fused(Vector a, Vector b) { return vaddq_f32(a, b); }
};

}  // namespace

void fill_gemv_neon(TileKernels& tiles) {
  tiles.gemv_f32 = gemv<FloatTables<Neon, float, float>>;
  tiles.gemv_i8 = gemv<FloatTables<Neon, std::int8_t, std::int32_t>>;
}

}  // namespace equibit
