// int8 sums with AVX-512 VNNI: vpdpbusd multiplies four unsigned bytes by four signed ones and adds them up,
// for 16 places at once; Zen 4 does one a cycle, 64 multiply-adds. Half a byte of a filter's weights becomes
// the four bytes 0 or 1 of its bits, and since w = 2 bit - 1,
//
//   sum of w x = 2 (sum of bit x) - (sum of x)

#include <immintrin.h>

#include <cstring>

#include "layouts.h"
#include "vnni_levels.h"

namespace equibit {

namespace {

// spread.quads[n]: byte i is bit i of n.
struct Spread {
  std::uint32_t quads[16];
};

constexpr Spread spread_bits() {
  Spread spread{};
  for (std::uint32_t n = 0; n < 16; ++n) {
    for (std::uint32_t i = 0; i < 4; ++i) spread.quads[n] |= (n >> i & 1) << 8 * i;
  }
  return spread;
}

alignas(64) constexpr Spread spread = spread_bits();

// Sums of all inputs of each place.
void sum_inputs(const std::int8_t* panel, std::int64_t bytes, std::int64_t lanes, __m512i* totals) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i low = _mm512_setzero_si512(), high = low;
  for (std::int64_t quad = 0; quad < 2 * bytes; quad += 2) {
    low = _mm512_dpbusd_epi32(low, ones, _mm512_load_si512(panel + 4 * quad * lanes));
    high = _mm512_dpbusd_epi32(high, ones, _mm512_load_si512(panel + 4 * (quad + 1) * lanes));
  }
  *totals = _mm512_add_epi32(low, high);
}

// Adds a quad of each place to the sums of a filter whose weights are half a byte: `offset` is four times
// that.
template <int vectors>
void add_quad(const __m512i (&x)[vectors], std::uint64_t offset, __m512i (&sums)[vectors]) {
  std::uint32_t bits;
  std::memcpy(&bits, reinterpret_cast<const char*>(spread.quads) + offset, sizeof bits);
  const __m512i weights = _mm512_set1_epi32(static_cast<int>(bits));
#pragma GCC unroll 2
  for (int v = 0; v < vectors; ++v) sums[v] = _mm512_dpbusd_epi32(sums[v], weights, x[v]);
}

// The sums of a block of filters for 16 * vectors places.
template <int vectors>
void sum_block(const std::int8_t* panel, std::int64_t bytes, std::int64_t lanes, const std::uint8_t* weights,
               const __m512i* totals, std::int32_t* out) {
  __m512i sums[table_block][vectors];
#pragma GCC unroll 8
  for (int i = 0; i < table_block; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) sums[i][v] = _mm512_setzero_si512();
  }
  for (std::int64_t byte = 0; byte < bytes; ++byte) {
    std::uint64_t packed;
    std::memcpy(&packed, weights + byte * table_block, sizeof packed);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      __m512i x[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v)
        x[v] = _mm512_load_si512(panel + 4 * (lanes * (2 * byte + half) + 16 * v));
#pragma GCC unroll 8
      for (int i = 0; i < table_block; ++i) {
        const int shift = 8 * i + 4 * half - 2;
        add_quad<vectors>(x, (shift < 0 ? packed << -shift : packed >> shift) & 0x3C, sums[i]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < table_block; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      const __m512i twice = _mm512_add_epi32(sums[i][v], sums[i][v]);
      _mm512_store_si512(out + i * lanes + 16 * v, _mm512_sub_epi32(twice, totals[v]));
    }
  }
}

// The sums of all filters for 16 * vectors places.
template <int vectors>
void sum_places(const std::int8_t* panel, std::int64_t bytes, std::int64_t lanes, const std::uint8_t* filters,
                std::int64_t count, std::int32_t* out) {
  __m512i totals[vectors];
  for (int v = 0; v < vectors; ++v) sum_inputs(panel + 64 * v, bytes, lanes, totals + v);
  for (std::int64_t filter = 0; filter < count; filter += table_block) {
    sum_block<vectors>(panel, bytes, lanes, filters + filter * bytes, totals, out + filter * lanes);
  }
}

void vnni_tile(const std::int8_t* panel, std::int64_t bytes, std::int64_t lanes, const std::uint8_t* filters,
               std::int64_t count, void*, std::int32_t* out) {
  std::int64_t lane = 0;
  for (; lane + 32 <= lanes; lane += 32) {
    sum_places<2>(panel + 4 * lane, bytes, lanes, filters, count, out + lane);
  }
  if (lane < lanes) sum_places<1>(panel + 4 * lane, bytes, lanes, filters, count, out + lane);
}

}  // namespace

void fill_vnni_avx512_vnni(TileKernels& tiles) {
  tiles.vnni_tile = vnni_tile;
  // On Zen 4 it does 62 multiply-adds a cycle for any number; tables do 70 for 64 filters, 93 for 512.
  tiles.vnni_filters = 48;
}

}  // namespace equibit
