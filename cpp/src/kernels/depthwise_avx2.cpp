// Depthwise convolutions with AVX2 and FMA: eight columns a step.

#include <immintrin.h>

#include "depthwise.h"
#include "depthwise_levels.h"
#include "floats_avx2.h"

namespace equibit {

namespace {

alignas(64) constexpr std::int32_t ends[24] = {0,  0,  0,  0,  0, 0, 0, 0, -1, -1, -1, -1,
                                               -1, -1, -1, -1, 0, 0, 0, 0, 0,  0,  0,  0};

struct Avx2 : FloatsAvx2 {
  using Mask = __m256i;

  static Mask from(std::int64_t at) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(ends + at));
  }
  static Mask between(std::int64_t first, std::int64_t last) {
    const auto lane = [](std::int64_t at) { return std::min(std::max<std::int64_t>(at, 0), lanes); };
    return _mm256_and_si256(from(lanes - lane(first)), from(2 * lanes - lane(last)));
  }
  static bool whole(Mask mask) { return _mm256_movemask_epi8(mask) == -1; }

  static Floats load(const float* from, Mask mask) { return _mm256_maskload_ps(from, mask); }
  // The first lanes, as many as the mask has. A masked store takes many times as long as a few others.
  static void store(float* to, Floats values, Mask mask) {
    const auto count = static_cast<unsigned>(
        _mm_popcnt_u32(static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(mask)))));
    if (count == lanes) return _mm256_storeu_ps(to, values);
    __m128 rest = _mm256_castps256_ps128(values);
    if (count & 4U) {
      _mm_storeu_ps(to, rest);
      rest = _mm256_extractf128_ps(values, 1);
      to += 4;
    }
    if (count & 2U) {
      _mm_storel_pi(reinterpret_cast<__m64*>(to), rest);
      rest = _mm_movehl_ps(rest, rest);
      to += 2;
    }
    if (count & 1U) _mm_store_ss(to, rest);
  }
  static Floats in_order(Floats halves) {  // after a shuffle within both halves of a register
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(halves), 0xD8));
  }
  static Floats even(Floats low, Floats high) { return in_order(_mm256_shuffle_ps(low, high, 0x88)); }
  static Floats odd(Floats low, Floats high) { return in_order(_mm256_shuffle_ps(low, high, 0xDD)); }
  static Floats shift(Floats v, float value) {
    const Floats rotated = _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 0));
    return _mm256_blend_ps(rotated, _mm256_set1_ps(value), 0x80);
  }
};

}  // namespace

void fill_depthwise_avx2(TileKernels& tiles) { tiles.depthwise_f32 = depthwise_f32<Avx2, Avx2>; }

}  // namespace equibit
