// Vectors of eight words, for AVX-512 (F, BW, DQ, VL).
#pragma once

#include <immintrin.h>

#include "equibit/word.h"

namespace equibit {

namespace {

struct Avx512Words {
  using Vector = __m512i;
  static constexpr std::int64_t lanes = 8;

  static Vector zero() { return _mm512_setzero_si512(); }
  static Vector load(const Word* place) { return _mm512_loadu_si512(place); }
  static void store(Word* place, Vector words) { _mm512_storeu_si512(place, words); }
  static Vector load_part(const Word* place, std::int64_t count) {
    return _mm512_maskz_loadu_epi64(static_cast<__mmask8>((1U << count) - 1), place);
  }
  static Vector broadcast(const Word* place) { return _mm512_set1_epi64(static_cast<long long>(*place)); }

  static Vector add(Vector a, Vector b) { return _mm512_add_epi64(a, b); }
  static Vector differ(Vector a, Vector b) { return _mm512_xor_si512(a, b); }
  static Vector shift(Vector v, std::int64_t bits) { return _mm512_sll_epi64(v, _mm_cvtsi64_si128(bits)); }
  static Vector descents(Vector a, Vector b, Vector c) {
    return _mm512_ternarylogic_epi64(a, b, c, (0xF0 & ~0xCC) | (0xCC & ~0xAA));
  }

  // The low halves of the words.
  static void store(std::int32_t* place, Vector words) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(place), _mm512_cvtepi64_epi32(words));
  }
  static std::int64_t sum(Vector words) { return _mm512_reduce_add_epi64(words); }

  using Marks = __m512i;
  static constexpr std::int64_t floats = 16;

  static Word signs(const float* x) { return at_least_zero(x); }
  static Marks load_marks(const std::uint32_t* place) { return _mm512_loadu_si512(place); }
  static void store_marks(std::uint32_t* place, Marks marks) { _mm512_storeu_si512(place, marks); }
  static Marks mark(Marks marks, const float* x, std::uint32_t bit) {
    return _mm512_mask_or_epi32(marks, at_least_zero(x), marks, _mm512_set1_epi32(static_cast<int>(bit)));
  }
  static void join(Word* place, Marks low, Marks high) {
    const Marks first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const Marks second = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
    store(place, _mm512_permutex2var_epi32(low, first, high));
    store(place + lanes, _mm512_permutex2var_epi32(low, second, high));
  }

 private:
  static __mmask16 at_least_zero(const float* x) {
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(x), _mm512_setzero_ps(), _CMP_GE_OQ);
  }
};

}  // namespace

}  // namespace equibit
