// A row of inputs with AVX-512: tables of five inputs, 32 sums in two registers. Permutations and shifts
// share two units of 256 bits on Zen 4: eleven of them for the 480 weights of a register bound it to 44
// multiply-adds a cycle, which it comes close to while half of the additions are fused ones, in other units.

#include <immintrin.h>

#include "gemv.h"
#include "gemv_levels.h"

namespace equibit {

namespace {

struct Avx512 {
  using Vector = __m512;
  using Indices = __m512i;
  static constexpr int lanes = 16, bits = 5, blocks = 4;

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector broadcast(float value) { return _mm512_set1_ps(value); }
  static Vector load(const float* place) { return _mm512_loadu_ps(place); }
  static void store(float* place, Vector v) { _mm512_storeu_ps(place, v); }
  static Indices load_indices(const void* place) { return _mm512_loadu_si512(place); }
  template <int n>
  static Indices shift(Indices v) {
    return n == 0 ? v : _mm512_srli_epi32(v, n);
  }
  static Vector look_up(const float* table, Indices v) {
    return _mm512_permutex2var_ps(_mm512_load_ps(table), v, _mm512_load_ps(table + lanes));
  }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(b, c, a); }
  static Vector add_fused(Vector a, Vector b) { return multiply_add(a, b, broadcast(1)); }
};

// Tables of 16-bit integers: a register looks up the sums of all filters of a block, two for each lane of a
// float.
struct WordTables {
  using Input = std::int8_t;
  using Sum = std::int32_t;
  static constexpr int blocks = 4, tables = 3, bits = 5;
  static constexpr std::int64_t column_bytes = 64 * tables;

  // Columns whose sums stay within 16 bits.
  static constexpr std::int64_t word_run = 17;
  static_assert(tables * bits == gemv_inputs && word_run * gemv_inputs * 128 < 1 << 15);

  static void build(const Input* x, std::int64_t count, void* out) {
    std::int16_t inputs[gemv_inputs] = {};
    for (std::int64_t i = 0; i < gemv_inputs && i < count; ++i) inputs[i] = x[i];
    const __m512i entry = _mm512_cvtepi8_epi16(entry_numbers());
    for (int table = 0; table < tables; ++table) {
      __m512i sum = _mm512_setzero_si512();
      for (int i = 0; i < bits; ++i) {
        const __m512i input = _mm512_set1_epi16(inputs[bits * table + i]);
        const __mmask32 added = _mm512_test_epi16_mask(entry, _mm512_set1_epi16(static_cast<short>(1 << i)));
        const __m512i less = _mm512_sub_epi16(sum, input);
        sum = _mm512_mask_add_epi16(less, added, sum, input);
      }
      _mm512_store_si512(static_cast<char*>(out) + 64 * table, sum);
    }
  }

  template <int blocks>
  static void sum(const void* tables, std::int64_t columns, const std::uint8_t* weights, std::int64_t stride,
                  Sum* sums) {
    for (std::int64_t i = 0; i < blocks * gemv_block; i += 16) {
      _mm512_storeu_si512(sums + i, _mm512_setzero_si512());
    }
    for (std::int64_t first = 0; first < columns; first += word_run) {
      const std::int64_t run = columns - first < word_run ? columns - first : word_run;
      add_run<blocks>(static_cast<const char*>(tables) + first * column_bytes, run,
                      weights + 2 * first * gemv_block, stride, sums);
    }
  }

 private:
  static __m256i entry_numbers() {
    return _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
                            23, 24, 25, 26, 27, 28, 29, 30, 31);
  }

  template <int blocks>
  static void add_run(const char* tables, std::int64_t columns, const std::uint8_t* weights,
                      std::int64_t stride, Sum* sums) {
    __m512i words[blocks];
#pragma GCC unroll 4
    for (int i = 0; i < blocks; ++i) words[i] = _mm512_setzero_si512();
    for (std::int64_t column = 0; column < columns; ++column) {
#pragma GCC unroll 4
      for (int i = 0; i < blocks; ++i) {
        __builtin_prefetch(weights + i * stride + prefetch_bytes);
        const __m512i weight = _mm512_loadu_si512(weights + i * stride);
        const auto look_up = [&](int table) {
          return _mm512_permutexvar_epi16(_mm512_srli_epi16(weight, bits * table),
                                          _mm512_load_si512(tables + 64 * table));
        };
        const __m512i two = _mm512_add_epi16(look_up(0), look_up(1));
        words[i] = _mm512_add_epi16(_mm512_add_epi16(words[i], look_up(2)), two);
      }
      weights += 2 * gemv_block;
      tables += column_bytes;
    }
#pragma GCC unroll 4
    for (int i = 0; i < blocks; ++i) {
      Sum* block = sums + i * gemv_block;
      const __m512i low = _mm512_srai_epi32(_mm512_slli_epi32(words[i], 16), 16);
      const __m512i high = _mm512_srai_epi32(words[i], 16);
      _mm512_storeu_si512(block, _mm512_add_epi32(_mm512_loadu_si512(block), low));
      _mm512_storeu_si512(block + 16, _mm512_add_epi32(_mm512_loadu_si512(block + 16), high));
    }
  }
};

}  // namespace

void fill_gemv_avx512(TileKernels& tiles) {
  tiles.gemv_f32 = gemv<FloatTables<Avx512, float, float>>;
  tiles.gemv_i8 = gemv<WordTables>;
}

}  // namespace equibit
