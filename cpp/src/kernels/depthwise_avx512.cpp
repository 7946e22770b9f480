// Depthwise convolutions with AVX-512 (F, VL): sixteen columns a step or eight.

#include <immintrin.h>

#include "depthwise.h"
#include "depthwise_levels.h"
#include "floats_avx2.h"
#include "floats_avx512.h"

namespace equibit {

namespace {

// Lanes first .. last - 1 of `lanes`.
std::uint32_t bits_between(std::int64_t first, std::int64_t last, std::int64_t lanes) {
  const auto below = [lanes](std::int64_t lane) {
    return (1U << std::min(std::max<std::int64_t>(lane, 0), lanes)) - 1;
  };
  return below(last) & ~below(first);
}

struct Sixteen : FloatsAvx512 {
  using Mask = __mmask16;

  static Mask between(std::int64_t first, std::int64_t last) {
    return static_cast<Mask>(bits_between(first, last, lanes));
  }
  static Floats load(const float* from, Mask mask) { return _mm512_maskz_loadu_ps(mask, from); }
  static void store(float* to, Floats values, Mask mask) { _mm512_mask_storeu_ps(to, mask, values); }
  static Floats even(Floats low, Floats high) {
    const __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(low, at, high);
  }
  static Floats odd(Floats low, Floats high) {
    const __m512i at = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(low, at, high);
  }
  static Floats shift(Floats v, float value) {
    return _mm512_castsi512_ps(
        _mm512_alignr_epi32(_mm512_castps_si512(_mm512_set1_ps(value)), _mm512_castps_si512(v), 1));
  }
};

// Comparisons to a mask, which AVX2 has not.
struct Eight : FloatsAvx2 {
  using Mask = __mmask8;

  static Mask between(std::int64_t first, std::int64_t last) {
    return static_cast<Mask>(bits_between(first, last, lanes));
  }
  static Floats load(const float* from, Mask mask) { return _mm256_maskz_loadu_ps(mask, from); }
  static void store(float* to, Floats values, Mask mask) { _mm256_mask_storeu_ps(to, mask, values); }
  static Floats below(Floats v, Floats bound, Floats other) {
    return _mm256_mask_mov_ps(v, _mm256_cmp_ps_mask(v, bound, _CMP_LT_OQ), other);
  }
  static Floats above(Floats v, Floats bound, Floats other) {
    return _mm256_mask_mov_ps(v, _mm256_cmp_ps_mask(v, bound, _CMP_GT_OQ), other);
  }
  static Floats even(Floats low, Floats high) {
    return _mm256_permutex2var_ps(low, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14), high);
  }
  static Floats odd(Floats low, Floats high) {
    return _mm256_permutex2var_ps(low, _mm256_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15), high);
  }
  static Floats shift(Floats v, float value) {
    return _mm256_castsi256_ps(
        _mm256_alignr_epi32(_mm256_castps_si256(_mm256_set1_ps(value)), _mm256_castps_si256(v), 1));
  }
};

}  // namespace

void fill_depthwise_avx512(TileKernels& tiles) { tiles.depthwise_f32 = depthwise_f32<Sixteen, Eight>; }

}  // namespace equibit
