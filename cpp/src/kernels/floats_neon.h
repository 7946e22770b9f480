// Arithmetic on four floats, for NEON.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace equibit {

namespace {

struct FloatsNeon {
  using Floats = float32x4_t;
  static constexpr std::int64_t lanes = 4;

  static Floats all(float value) { return vdupq_n_f32(value); }
  static Floats add(Floats a, Floats b) { return vaddq_f32(a, b); }
  static Floats mul(Floats a, Floats b) { return vmulq_f32(a, b); }
  static Floats div(Floats a, Floats b) { return vdivq_f32(a, b); }
  static Floats fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
  static Floats below(Floats v, Floats bound, Floats other) {
    return vbslq_f32(vcltq_f32(v, bound), other, v);
  }
  static Floats above(Floats v, Floats bound, Floats other) {
    return vbslq_f32(vcgtq_f32(v, bound), other, v);
  }
  static Floats not_below(Floats v, Floats bound, Floats yes, Floats no) {
    return vbslq_f32(vcgeq_f32(v, bound), yes, no);
  }
};

}  // namespace

}  // namespace equibit
