// With AVX-512 (F, BW, DQ, VL): sixteen places a step, the last ones masked.

#include <immintrin.h>

#include "finish.h"
#include "finish_levels.h"
#include "floats_avx512.h"

namespace equibit {

namespace {

struct Avx512 : FloatsAvx512 {
  using Ints = __m512i;
  using Tail = __mmask16;

  static Tail first(std::int64_t count) {
    return static_cast<Tail>(count >= lanes ? 0xFFFFU : (1U << count) - 1);
  }
  static Floats load(const float* from, Tail tail) { return _mm512_maskz_loadu_ps(tail, from); }
  static Ints load(const std::int32_t* from, Tail tail) { return _mm512_maskz_loadu_epi32(tail, from); }
  static void store(float* to, Floats values, Tail tail) { _mm512_mask_storeu_ps(to, tail, values); }
  static Ints ints(std::int32_t value) { return _mm512_set1_epi32(value); }
  using FloatsAvx512::add;
  static Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static Ints sub(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
  static Floats float_of(Ints values) { return _mm512_cvtepi32_ps(values); }

  // A table of up to sixteen numbers is a register.
  static Ints lookup(const std::int32_t* table, std::int64_t size, Ints at, Tail tail) {
    if (size <= lanes) return _mm512_permutexvar_epi32(at, load(table, first(size)));
    return _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), tail, at, table, 4);
  }

  static Ints round(Floats v) { return _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(v, v, _CMP_ORD_Q), v); }

  static void store_quads(std::int8_t* to, const Ints* quads, std::int64_t count) {
    const Ints byte = _mm512_set1_epi32(0xFF);
    Ints packed = _mm512_and_si512(quads[0], byte);
    packed = _mm512_or_si512(packed, _mm512_slli_epi32(_mm512_and_si512(quads[1], byte), 8));
    packed = _mm512_or_si512(packed, _mm512_slli_epi32(_mm512_and_si512(quads[2], byte), 16));
    packed = _mm512_or_si512(packed, _mm512_slli_epi32(quads[3], 24));
    _mm512_mask_storeu_epi32(to, first(count), packed);
  }

  static Ints mark(Ints marks, Ints values, Ints bounds) {
    const Ints doubled = add(marks, marks);
    return _mm512_mask_add_epi32(doubled, _mm512_cmple_epi32_mask(values, bounds), doubled,
                                 _mm512_set1_epi32(1));
  }
  static std::uint32_t reached(Ints values, Ints bounds, std::int64_t count) {
    return _mm512_mask_cmple_epi32_mask(first(count), values, bounds);
  }
  static void store_half(Word* to, __m256i low, __m256i high, Word flips, __mmask8 tail) {
    const Ints upper = _mm512_slli_epi64(_mm512_cvtepu32_epi64(high), 32);
    const Ints words = _mm512_or_si512(_mm512_cvtepu32_epi64(low), upper);
    const Ints flipped = _mm512_xor_si512(words, _mm512_set1_epi64(static_cast<long long>(flips)));
    _mm512_mask_storeu_epi64(to, tail, flipped);
  }
  static void store_words(Word* to, Ints low, Ints high, Word flips, Tail tail) {
    store_half(to, _mm512_castsi512_si256(low), _mm512_castsi512_si256(high), flips,
               static_cast<__mmask8>(tail));
    if (tail >> 8 == 0) return;
    store_half(to + 8, _mm512_extracti64x4_epi64(low, 1), _mm512_extracti64x4_epi64(high, 1), flips,
               static_cast<__mmask8>(tail >> 8));
  }
};

}  // namespace

void fill_finish_avx512(TileKernels& tiles) { fill_finish<Avx512>(tiles); }

}  // namespace equibit
