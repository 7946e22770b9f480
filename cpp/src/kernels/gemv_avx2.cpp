// A row of inputs with AVX2: tables of three inputs, eight sums in a register.

#include <immintrin.h>

#include "gemv.h"
#include "gemv_levels.h"

namespace equibit {

namespace {

struct Avx2 {
  using Vector = __m256;
  using Indices = __m256i;
  static constexpr int lanes = 8, bits = 3, blocks = 1;

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector broadcast(float value) { return _mm256_set1_ps(value); }
  static Vector load(const float* place) { return _mm256_loadu_ps(place); }
  static void store(float* place, Vector v) { _mm256_storeu_ps(place, v); }
  static Indices load_indices(const void* place) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(place));
  }
  template <int n>
  static Indices shift(Indices v) {
    return n == 0 ? v : _mm256_srli_epi32(v, n);
  }
  static Vector look_up(const float* table, Indices v) {
    return _mm256_permutevar8x32_ps(_mm256_load_ps(table), v);
  }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(b, c, a); }
  static Vector add_fused(Vector a, Vector b) { return multiply_add(a, b, broadcast(1)); }
};

}  // namespace

void fill_gemv_avx2(TileKernels& tiles) {
  tiles.gemv_f32 = gemv<FloatTables<Avx2, float, float>>;
  tiles.gemv_i8 = gemv<FloatTables<Avx2, std::int8_t, std::int32_t>>;
}

}  // namespace equibit
