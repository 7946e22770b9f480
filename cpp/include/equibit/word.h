// The word of a packed row: the one definition of its width, its byte order and how many words a row takes.
#pragma once

#include <cstdint>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error \
    "packed rows are little-endian bytes; a big-endian machine must swap the bytes of a word as it loads it"
#endif

namespace equibit {

using Word = std::uint64_t;

constexpr std::int64_t word_bits = 64;

// Words of a row of `n` bits. Bit i of a row is bit i % 64 of word i / 64; a set bit is +1; bits from n on
// are zero.
constexpr std::int64_t words_for(std::int64_t n) { return (n + word_bits - 1) / word_bits; }

// A word whose lowest `count` bits are set; 0 <= count <= 64.
constexpr Word low_bits(std::int64_t count) { return count == 0 ? 0 : ~Word{0} >> (word_bits - count); }

// The set bits of a word, summed in parallel: pairs, nibbles, bytes, then the eight bytes by one
// multiplication.
constexpr std::int32_t popcount64(Word word) {
  word -= (word >> 1) & 0x5555555555555555U;
  word = (word & 0x3333333333333333U) + ((word >> 2) & 0x3333333333333333U);
  word = (word + (word >> 4)) & 0x0F0F0F0F0F0F0F0FU;
  return static_cast<std::int32_t>((word * 0x0101010101010101U) >> 56);
}

}  // namespace equibit
