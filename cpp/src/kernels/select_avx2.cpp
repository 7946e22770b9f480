// Selection with AVX2 and POPCNT: eight floats a step. Of each step the bracket's values are brought to the
// front by a permutation that is looked up by the mask of which they are. Doubles take plain loops.

#include <immintrin.h>

#include "select.h"
#include "select_levels.h"
#include "select_portable.h"

namespace equibit {

namespace {

// fronts.places[mask]: the places of the set bits of `mask`, lowest first, a byte each.
struct Fronts {
  std::uint64_t places[256];
};

constexpr Fronts list_fronts() {
  Fronts fronts{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    int filled = 0;
    for (std::uint64_t bit = 0; bit < 8; ++bit) {
      if (mask >> bit & 1) fronts.places[mask] |= bit << (8 * filled++);
    }
  }
  return fronts;
}

constexpr Fronts fronts = list_fronts();

struct Avx2 {
  template <bool magnitude>
  static Split split(const float* values, std::int64_t n, std::int32_t low, std::int32_t high,
                     float* inside) {
    const __m256i lows = _mm256_set1_epi32(low), highs = _mm256_set1_epi32(high);
    Split split{0, 0};
    std::int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
      const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + i));
      __m256i key = _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF));
      if constexpr (!magnitude) {
        const __m256i sign = _mm256_srai_epi32(bits, 31);
        key = _mm256_sub_epi32(_mm256_xor_si256(key, sign), sign);
      }
      const int below = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(lows, key)));
      const int above = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(key, highs)));
      const int kept = 0xFF & ~(below | above);
      const __m256i places =
          _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(fronts.places[kept])));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(inside + split.inside),
                          _mm256_permutevar8x32_epi32(bits, places));
      split.below += __builtin_popcount(static_cast<unsigned>(below));
      split.inside += __builtin_popcount(static_cast<unsigned>(kept));
    }
    const Split rest = split_plain<Avx2, magnitude>(values + i, n - i, low, high, inside + split.inside);
    return {split.below + rest.below, split.inside + rest.inside};
  }

  template <bool magnitude>
  static Split split(const double* values, std::int64_t n, std::int64_t low, std::int64_t high,
                     double* inside) {
    return split_plain<Avx2, magnitude>(values, n, low, high, inside);
  }
};

}  // namespace

void fill_select_avx2(Kernels& kernels) { fill_select<Avx2>(kernels); }

}  // namespace equibit
