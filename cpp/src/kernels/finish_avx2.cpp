// With AVX2 and FMA: eight places a step, the last ones masked.

#include <immintrin.h>

#include "finish.h"
#include "finish_levels.h"
#include "floats_avx2.h"

namespace equibit {

namespace {

alignas(64) constexpr std::int32_t tails[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

struct Avx2 : FloatsAvx2 {
  using Ints = __m256i;
  using Tail = __m256i;

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
  static Ints ints(std::int32_t value) { return _mm256_set1_epi32(value); }
  using FloatsAvx2::add;
  static Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static Ints sub(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
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

  // A comparison gives -1, and tells greater only.
  static Ints mark(Ints marks, Ints values, Ints bounds) {
    const Ints next = sub(add(marks, marks), ints(-1));
    return add(next, _mm256_cmpgt_epi32(values, bounds));
  }
  static std::uint32_t reached(Ints values, Ints bounds, std::int64_t count) {
    const int beyond = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(values, bounds)));
    return ~static_cast<std::uint32_t>(beyond) & ((1U << count) - 1);
  }
  static void store_words(Word* to, Ints low, Ints high, Word flips, Tail tail) {
    const Ints mask = _mm256_set1_epi64x(static_cast<long long>(flips));
    const Ints even = _mm256_xor_si256(_mm256_unpacklo_epi32(low, high), mask);
    const Ints odd = _mm256_xor_si256(_mm256_unpackhi_epi32(low, high), mask);
    const Ints first_four = _mm256_permute2x128_si256(even, odd, 0x20);
    const Ints last_four = _mm256_permute2x128_si256(even, odd, 0x31);
    if (whole(tail)) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), first_four);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 4), last_four);
    } else {
      auto* words = reinterpret_cast<long long*>(to);
      _mm256_maskstore_epi64(words, _mm256_cvtepi32_epi64(_mm256_castsi256_si128(tail)), first_four);
      _mm256_maskstore_epi64(words + 4, _mm256_cvtepi32_epi64(_mm256_extracti128_si256(tail, 1)), last_four);
    }
  }
};

}  // namespace

void fill_finish_avx2(TileKernels& tiles) { fill_finish<Avx2>(tiles); }

}  // namespace equibit
