// 1W1A with AVX-512 (F, BW, DQ, VL), which has no instruction for popcount.

#include "byte_counter.h"
#include "words_avx512.h"
#include "xnor.h"
#include "xnor_levels.h"

namespace equibit {

namespace {

struct Avx512 : Avx512Words {
  using Counter = ByteCounter<Avx512>;
  static constexpr int tile_vectors = 1;
  static constexpr int tile_filters = 4;

  static Vector both(Vector a, Vector b) { return _mm512_and_si512(a, b); }
  static Vector majority(Vector a, Vector b, Vector c) { return _mm512_ternarylogic_epi64(a, b, c, 0xE8); }
  static Vector parity(Vector a, Vector b, Vector c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
  static Vector four_times(Vector a) { return _mm512_slli_epi64(a, 2); }
  static Vector add_bytes(Vector a, Vector b) { return _mm512_add_epi8(a, b); }
  static Vector sum_bytes(Vector bytes) { return _mm512_sad_epu8(bytes, zero()); }
  static Vector count_bytes(Vector bits) {
    const Vector counts =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const Vector nibble = _mm512_set1_epi8(15);
    const Vector low = _mm512_and_si512(bits, nibble);
    const Vector high = _mm512_and_si512(_mm512_srli_epi16(bits, 4), nibble);
    return add_bytes(_mm512_shuffle_epi8(counts, low), _mm512_shuffle_epi8(counts, high));
  }
};

}  // namespace

void fill_xnor_avx512(Kernels& kernels) { fill_xnor<Avx512>(kernels); }

}  // namespace equibit
