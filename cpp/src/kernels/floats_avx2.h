// Arithmetic on eight floats, for AVX2 and FMA.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace equibit {

namespace {

struct FloatsAvx2 {
  using Floats = __m256;
  static constexpr std::int64_t lanes = 8;

  static Floats all(float value) { return _mm256_set1_ps(value); }
  static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
  static Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static Floats below(Floats v, Floats bound, Floats other) {
    return _mm256_blendv_ps(v, other, _mm256_cmp_ps(v, bound, _CMP_LT_OQ));
  }
  static Floats above(Floats v, Floats bound, Floats other) {
    return _mm256_blendv_ps(v, other, _mm256_cmp_ps(v, bound, _CMP_GT_OQ));
  }
  static Floats not_below(Floats v, Floats bound, Floats yes, Floats no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(v, bound, _CMP_GE_OQ));
  }
};

}  // namespace

}  // namespace equibit
