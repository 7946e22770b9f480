// Tables with AVX2: 8 places of floats or 16 of 16-bit integers to a register, two registers to an entry.

#include <immintrin.h>

#include "dense.h"
#include "table.h"
#include "table_levels.h"

namespace equibit {

namespace {

struct Floats {
  using Input = float;
  using Sum = float;
  using Vector = __m256;
  static constexpr int vectors = 2, lanes = 16, filters = 4;

  static Vector load(const void* place) { return _mm256_load_ps(static_cast<const float*>(place)); }
  static void store(void* place, Vector v) { _mm256_store_ps(static_cast<float*>(place), v); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
  static Vector negate(Vector v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0F)); }
  static Vector broadcast(float value) { return _mm256_set1_ps(value); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(b, c, a); }

  static void load_rows(const float* panel, std::int64_t group, std::int64_t lanes, std::int64_t lane,
                        Vector* x) {
    for (int i = 0; i < 4; ++i) x[i] = load(panel + (4 * group + i) * lanes + lane);
  }
  static Vector zero() { return _mm256_setzero_ps(); }
  static void add_to(float* sums, Vector v, bool first) {
    _mm256_storeu_ps(sums, first ? v : add(_mm256_loadu_ps(sums), v));
  }
};

// Words of a register take turns: an even one is a place of the first half, an odd one of the second half.
template <int registers>
struct Words {
  using Input = std::int8_t;
  using Sum = std::int32_t;
  using Vector = __m256i;
  static constexpr int vectors = registers, lanes = 16 * registers, filters = 8 / registers;

  static Vector load(const void* place) { return _mm256_load_si256(static_cast<const __m256i*>(place)); }
  static void store(void* place, Vector v) { _mm256_store_si256(static_cast<__m256i*>(place), v); }
  static Vector add(Vector a, Vector b) { return _mm256_add_epi16(a, b); }
  static Vector subtract(Vector a, Vector b) { return _mm256_sub_epi16(a, b); }
  static Vector negate(Vector v) { return _mm256_sub_epi16(_mm256_setzero_si256(), v); }

  static void load_rows(const std::int8_t* panel, std::int64_t group, std::int64_t lanes, std::int64_t lane,
                        Vector* x) {
    const std::int8_t* quads = panel + 4 * (group * lanes + lane);
    const Vector low = load(quads), high = load(quads + 32);
    const Vector pairs[2] = {_mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xAA),
                             _mm256_blend_epi16(_mm256_srli_epi32(low, 16), high, 0xAA)};
    for (int i = 0; i < 2; ++i) {
      x[2 * i] = _mm256_srai_epi16(_mm256_slli_epi16(pairs[i], 8), 8);
      x[2 * i + 1] = _mm256_srai_epi16(pairs[i], 8);
    }
  }
  static Vector zero() { return _mm256_setzero_si256(); }
  static void add_to(std::int32_t* sums, Vector v, bool first) {
    auto* places = reinterpret_cast<__m256i_u*>(sums);
    Vector low = _mm256_srai_epi32(_mm256_slli_epi32(v, 16), 16), high = _mm256_srai_epi32(v, 16);
    if (!first) {
      low = _mm256_add_epi32(low, _mm256_loadu_si256(places));
      high = _mm256_add_epi32(high, _mm256_loadu_si256(places + 1));
    }
    _mm256_storeu_si256(places, low);
    _mm256_storeu_si256(places + 1, high);
  }
};

}  // namespace

void fill_table_avx2(TileKernels& tiles) {
  tiles.dense_tile_f32 = dense_tile<Floats>;
  tiles.table_tile_f32 = table_tile<Floats, Floats>;
  tiles.table_rows_f32 = table_rows<Floats, Floats>;
  tiles.table_tile_i8 = table_tile<Words<2>, Words<1>>;
  tiles.table_rows_i8 = table_rows<Words<2>, Words<1>>;
}

}  // namespace equibit
