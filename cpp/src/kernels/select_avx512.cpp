// Selection with AVX-512 (F, BW, DQ, VL): sixteen floats or eight doubles a step. A bracket's values are
// packed in a register and stored whole: a compressing store takes more than a hundred cycles on Zen 4.

#include <immintrin.h>

#include "select.h"
#include "select_levels.h"

namespace equibit {

namespace {

struct Avx512 {
  template <bool magnitude>
  static Split split(const float* values, std::int64_t n, std::int32_t low, std::int32_t high,
                     float* inside) {
    const __m512i lows = _mm512_set1_epi32(low), highs = _mm512_set1_epi32(high);
    const __m512i ones = _mm512_set1_epi32(1);
    __m512i below = _mm512_setzero_si512();
    float* end = inside;
    const auto step = [&](const float* place, __mmask16 used) {
      const __m512i bits = _mm512_maskz_loadu_epi32(used, place);
      __m512i key = _mm512_and_epi32(bits, _mm512_set1_epi32(0x7FFFFFFF));
      if constexpr (!magnitude) {
        const __m512i sign = _mm512_srai_epi32(bits, 31);
        key = _mm512_sub_epi32(_mm512_xor_epi32(key, sign), sign);
      }
      const __mmask16 lower = _mm512_mask_cmplt_epi32_mask(used, key, lows);
      const __mmask16 kept = _mm512_mask_cmple_epi32_mask(_kandn_mask16(lower, used), key, highs);
      below = _mm512_mask_add_epi32(below, lower, below, ones);
      _mm512_storeu_si512(end, _mm512_maskz_compress_epi32(kept, bits));
      end += __builtin_popcount(kept);
    };
    std::int64_t i = 0;
    for (; i + 16 <= n; i += 16) step(values + i, 0xFFFF);
    if (i < n) step(values + i, static_cast<__mmask16>((1U << (n - i)) - 1));
    return {_mm512_reduce_add_epi32(below), end - inside};
  }

  template <bool magnitude>
  static Split split(const double* values, std::int64_t n, std::int64_t low, std::int64_t high,
                     double* inside) {
    const __m512i lows = _mm512_set1_epi64(low), highs = _mm512_set1_epi64(high);
    const __m512i ones = _mm512_set1_epi64(1);
    __m512i below = _mm512_setzero_si512();
    double* end = inside;
    const auto step = [&](const double* place, __mmask8 used) {
      const __m512i bits = _mm512_maskz_loadu_epi64(used, place);
      __m512i key = _mm512_and_epi64(bits, _mm512_set1_epi64(0x7FFFFFFFFFFFFFFF));
      if constexpr (!magnitude) {
        const __m512i sign = _mm512_srai_epi64(bits, 63);
        key = _mm512_sub_epi64(_mm512_xor_epi64(key, sign), sign);
      }
      const __mmask8 lower = _mm512_mask_cmplt_epi64_mask(used, key, lows);
      const __mmask8 kept = _mm512_mask_cmple_epi64_mask(_kandn_mask8(lower, used), key, highs);
      below = _mm512_mask_add_epi64(below, lower, below, ones);
      _mm512_storeu_si512(end, _mm512_maskz_compress_epi64(kept, bits));
      end += __builtin_popcount(kept);
    };
    std::int64_t i = 0;
    for (; i + 8 <= n; i += 8) step(values + i, 0xFF);
    if (i < n) step(values + i, static_cast<__mmask8>((1U << (n - i)) - 1));
    return {_mm512_reduce_add_epi64(below), end - inside};
  }
};

}  // namespace

void fill_select_avx512(Kernels& kernels) { fill_select<Avx512>(kernels); }

}  // namespace equibit
