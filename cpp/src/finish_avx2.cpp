// With AVX2 and FMA: eight places a step, the last ones masked.

#include <immintrin.h>

#include "finish.h"
#include "finish_levels.h"

namespace equibit {

namespace {

alignas(64) constexpr std::int32_t tails[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

struct Avx2 {
  using Floats = __m256;
  using Ints = __m256i;
  using Tail = __m256i;
  static constexpr std::int64_t lanes = 8;

  static Tail first(std::int64_t count) {
    return _mm256_loadu_si256(
        reinterpret_cast<const __m256i*>(tails + lanes - std::min<std::int64_t>(count, lanes)));
  }
  static bool whole(Tail tail) { return _mm256_extract_epi32(tail, 7) != 0; }

  static Floats load(const float* from, Tail tail) { return _mm256_maskload_ps(from, tail); }
  static Ints load(const std::int32_t* from, Tail tail) { return _mm256_maskload_epi32(from, tail); }
  // A masked store takes many times as long as a whole one.
  static void store(float* to, Floats values, Tail tail) {
    if (whole(tail)) {
      _mm256_storeu_ps(to, values);
    } else {
      _mm256_maskstore_ps(to, tail, values);
    }
  }
  static Floats all(float value) { return _mm256_set1_ps(value); }
  static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
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
  static Floats float_of(Ints values) { return _mm256_cvtepi32_ps(values); }

  static Ints lookup(const std::int32_t* table, std::int64_t, Ints at, Tail tail) {
    return _mm256_mask_i32gather_epi32(_mm256_setzero_si256(), table, at, tail, 4);
  }

  static Ints round(Floats v) {
    return _mm256_cvtps_epi32(_mm256_and_ps(v, _mm256_cmp_ps(v, v, _CMP_ORD_Q)));
  }

  static void store_quads(std::int8_t* to, const Ints* quads, std::int64_t count) {
    const Ints byte = _mm256_set1_epi32(0xFF);
    Ints packed = _mm256_and_si256(quads[0], byte);
    packed = _mm256_or_si256(packed, _mm256_slli_epi32(_mm256_and_si256(quads[1], byte), 8));
    packed = _mm256_or_si256(packed, _mm256_slli_epi32(_mm256_and_si256(quads[2], byte), 16));
    packed = _mm256_or_si256(packed, _mm256_slli_epi32(quads[3], 24));
    store(reinterpret_cast<float*>(to), _mm256_castsi256_ps(packed), first(count));
  }
};

}  // namespace

void fill_finish_avx2(TileKernels& tiles) { fill_finish<Avx2>(tiles); }

}  // namespace equibit
