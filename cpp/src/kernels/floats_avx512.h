// Arithmetic on sixteen floats, for AVX-512 (F).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace equibit {

namespace {

struct FloatsAvx512 {
  using Floats = __m512;
  static constexpr std::int64_t lanes = 16;

  static Floats all(float value) { return _mm512_set1_ps(value); }
  static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
  static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats below(Floats v, Floats bound, Floats other) {
    return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, bound, _CMP_LT_OQ), other);
  }
  static Floats above(Floats v, Floats bound, Floats other) {
    return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, bound, _CMP_GT_OQ), other);
  }
  static Floats not_below(Floats v, Floats bound, Floats yes, Floats no) {
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(v, bound, _CMP_GE_OQ), yes);
  }
};

}  // namespace

}  // namespace equibit
