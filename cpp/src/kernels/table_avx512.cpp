// Tables with AVX-512 (F, BW): 16 places of floats or 32 of 16-bit integers to a register. Zen 4 loads one
// such register a cycle, which bounds the float kernel to 64 multiply-adds a cycle and the integer one to
// 128; a Xeon loads two.

#include <immintrin.h>

#include "dense.h"
#include "table.h"
#include "table_levels.h"

namespace equibit {

namespace {

struct Floats {
  using Input = float;
  using Sum = float;
  using Vector = __m512;
  static constexpr int vectors = 1, lanes = 16, filters = 8;

  static Vector load(const void* place) { return _mm512_load_ps(place); }
  static void store(void* place, Vector v) { _mm512_store_ps(place, v); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
  static Vector negate(Vector v) { return _mm512_xor_ps(v, _mm512_set1_ps(-0.0F)); }
  static Vector broadcast(float value) { return _mm512_set1_ps(value); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(b, c, a); }

  static void load_rows(const float* panel, std::int64_t group, std::int64_t lanes, std::int64_t lane,
                        Vector* x) {
    for (int i = 0; i < 4; ++i) x[i] = load(panel + (4 * group + i) * lanes + lane);
  }
  static Vector zero() { return _mm512_setzero_ps(); }
  static void add_to(float* sums, Vector v, bool first) {
    _mm512_storeu_ps(sums, first ? v : add(_mm512_loadu_ps(sums), v));
  }
};

// Words of a register take turns: an even one is a place of the first half, an odd one of the second half.
struct Words {
  using Input = std::int8_t;
  using Sum = std::int32_t;
  using Vector = __m512i;
  static constexpr int vectors = 1, lanes = 32, filters = 8;

  static Vector load(const void* place) { return _mm512_load_si512(place); }
  static void store(void* place, Vector v) { _mm512_store_si512(place, v); }
  static Vector add(Vector a, Vector b) { return _mm512_add_epi16(a, b); }
  static Vector subtract(Vector a, Vector b) { return _mm512_sub_epi16(a, b); }
  static Vector negate(Vector v) { return _mm512_sub_epi16(_mm512_setzero_si512(), v); }

  static void load_rows(const std::int8_t* panel, std::int64_t group, std::int64_t lanes, std::int64_t lane,
                        Vector* x) {
    const std::int8_t* quads = panel + 4 * (group * lanes + lane);
    const Vector low = load(quads), high = load(quads + 64);
    const Vector pairs[2] = {_mm512_mask_blend_epi16(0xAAAAAAAA, low, _mm512_slli_epi32(high, 16)),
                             _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(low, 16), high)};
    for (int i = 0; i < 2; ++i) {
      x[2 * i] = _mm512_srai_epi16(_mm512_slli_epi16(pairs[i], 8), 8);
      x[2 * i + 1] = _mm512_srai_epi16(pairs[i], 8);
    }
  }
  static Vector zero() { return _mm512_setzero_si512(); }
  static void add_to(std::int32_t* sums, Vector v, bool first) {
    Vector low = _mm512_srai_epi32(_mm512_slli_epi32(v, 16), 16), high = _mm512_srai_epi32(v, 16);
    if (!first) {
      low = _mm512_add_epi32(low, _mm512_loadu_si512(sums));
      high = _mm512_add_epi32(high, _mm512_loadu_si512(sums + 16));
    }
    _mm512_storeu_si512(sums, low);
    _mm512_storeu_si512(sums + 16, high);
  }
};

// The same for 16 places.
struct FewWords {
  using Input = std::int8_t;
  using Sum = std::int32_t;
  using Vector = __m256i;
  static constexpr int vectors = 1, lanes = 16, filters = 8;

  static Vector load(const void* place) { return _mm256_load_si256(static_cast<const __m256i*>(place)); }
  static void store(void* place, Vector v) { _mm256_store_si256(static_cast<__m256i*>(place), v); }
  static Vector add(Vector a, Vector b) { return _mm256_add_epi16(a, b); }
  static Vector subtract(Vector a, Vector b) { return _mm256_sub_epi16(a, b); }
  static Vector negate(Vector v) { return _mm256_sub_epi16(_mm256_setzero_si256(), v); }

  static void load_rows(const std::int8_t* panel, std::int64_t group, std::int64_t lanes, std::int64_t lane,
                        Vector* x) {
    const __m512i quads = _mm512_load_si512(panel + 4 * (group * lanes + lane));
    const auto words_of = [](__m512i bytes) { return _mm512_cvtepi32_epi16(_mm512_srai_epi32(bytes, 24)); };
    x[0] = words_of(_mm512_slli_epi32(quads, 24));
    x[1] = words_of(_mm512_slli_epi32(quads, 16));
    x[2] = words_of(_mm512_slli_epi32(quads, 8));
    x[3] = words_of(quads);
  }
  static Vector zero() { return _mm256_setzero_si256(); }
  static void add_to(std::int32_t* sums, Vector v, bool first) {
    const __m512i wide = _mm512_cvtepi16_epi32(v);
    _mm512_storeu_si512(sums, first ? wide : _mm512_add_epi32(wide, _mm512_loadu_si512(sums)));
  }
};

}  // namespace

void fill_table_avx512(TileKernels& tiles) {
  tiles.dense_tile_f32 = dense_tile<Floats>;
  tiles.table_tile_f32 = table_tile<Floats, Floats>;
  tiles.table_rows_f32 = table_rows<Floats, Floats>;
  tiles.table_tile_i8 = table_tile<Words, FewWords>;
  tiles.table_rows_i8 = table_rows<Words, FewWords>;
}

}  // namespace equibit
