// 1W1A with AVX2.

#include <immintrin.h>

#include "byte_counter.h"
#include "xnor.h"
#include "xnor_levels.h"

namespace equibit {

namespace {

struct Avx2 {
  using Vector = __m256i;
  using Counter = ByteCounter<Avx2>;
  static constexpr std::int64_t lanes = 4;
  static constexpr int tile_vectors = 2;
  static constexpr int tile_filters = 1;

  static Vector zero() { return _mm256_setzero_si256(); }
  static Vector load(const Word* place) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(place));
  }
  static void store(Word* place, Vector words) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(place), words);
  }
  static Vector load_part(const Word* place, std::int64_t count) {
    const Vector used = _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
    return _mm256_maskload_epi64(reinterpret_cast<const long long*>(place), used);
  }
  static Vector broadcast(const Word* place) { return _mm256_set1_epi64x(static_cast<long long>(*place)); }

  static Vector add(Vector a, Vector b) { return _mm256_add_epi64(a, b); }
  static Vector differ(Vector a, Vector b) { return _mm256_xor_si256(a, b); }
  static Vector shift(Vector v, std::int64_t bits) { return _mm256_sll_epi64(v, _mm_cvtsi64_si128(bits)); }
  static Vector descents(Vector a, Vector b, Vector c) {
    return _mm256_or_si256(_mm256_andnot_si256(b, a), _mm256_andnot_si256(c, b));
  }

  static Vector both(Vector a, Vector b) { return _mm256_and_si256(a, b); }
  static Vector majority(Vector a, Vector b, Vector c) {
    return _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(_mm256_xor_si256(a, b), c));
  }
  static Vector parity(Vector a, Vector b, Vector c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
  static Vector four_times(Vector a) { return _mm256_slli_epi64(a, 2); }
  static Vector add_bytes(Vector a, Vector b) { return _mm256_add_epi8(a, b); }
  static Vector sum_bytes(Vector bytes) { return _mm256_sad_epu8(bytes, zero()); }
  static Vector count_bytes(Vector bits) {
    const Vector counts =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const Vector nibble = _mm256_set1_epi8(15);
    const Vector low = _mm256_and_si256(bits, nibble);
    const Vector high = _mm256_and_si256(_mm256_srli_epi16(bits, 4), nibble);
    return add_bytes(_mm256_shuffle_epi8(counts, low), _mm256_shuffle_epi8(counts, high));
  }

  // The low halves of the words.
  static void store(std::int32_t* place, Vector words) {
    const Vector even = _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(place), _mm256_castsi256_si128(even));
  }
  static std::int64_t sum(Vector words) {
    const __m128i pairs = _mm_add_epi64(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    return _mm_cvtsi128_si64(pairs) + _mm_extract_epi64(pairs, 1);
  }

  using Marks = __m256i;
  static constexpr std::int64_t floats = 8;

  static Word signs(const float* x) { return static_cast<Word>(_mm256_movemask_ps(at_least_zero(x))); }
  static Marks load_marks(const std::uint32_t* place) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(place));
  }
  static void store_marks(std::uint32_t* place, Marks marks) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(place), marks);
  }
  static Marks mark(Marks marks, const float* x, std::uint32_t bit) {
    const Marks here = _mm256_castps_si256(at_least_zero(x));
    return _mm256_or_si256(marks, _mm256_and_si256(here, _mm256_set1_epi32(static_cast<int>(bit))));
  }
  static void join(Word* place, Marks low, Marks high) {
    const Marks even = _mm256_unpacklo_epi32(low, high), odd = _mm256_unpackhi_epi32(low, high);
    store(place, _mm256_permute2x128_si256(even, odd, 0x20));
    store(place + lanes, _mm256_permute2x128_si256(even, odd, 0x31));
  }

 private:
  static __m256 at_least_zero(const float* x) {
    return _mm256_cmp_ps(_mm256_loadu_ps(x), _mm256_setzero_ps(), _CMP_GE_OQ);
  }
};

}  // namespace

void fill_xnor_avx2(Kernels& kernels) { fill_xnor<Avx2>(kernels); }

}  // namespace equibit
