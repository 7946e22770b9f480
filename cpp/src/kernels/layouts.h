// Where the weights of a byte, panel rows 8 byte .. 8 byte + 7 of one filter, lie in the layouts of the
// kernels.
#pragma once

#include <cstdint>

#include "equibit/tiles.h"

namespace equibit {

// [filters / table_block][bytes][table_block]
constexpr std::int64_t table_place(std::int64_t filter, std::int64_t byte, std::int64_t bytes) {
  return (filter / table_block * bytes + byte) * table_block + filter % table_block;
}

// Filters that share a column of the gemv kernels: a word of two bytes of each filter, of which the highest
// bit is clear.
constexpr std::int64_t gemv_block = layout_block;

// [filters / gemv_block][columns][gemv_block] words, of which the even ones are those of the first half of
// the block and the odd ones those of the second half.
constexpr std::int64_t gemv_place(std::int64_t filter, std::int64_t column, std::int64_t columns) {
  const std::int64_t within = filter % gemv_block, half = gemv_block / 2;
  return (filter / gemv_block * columns + column) * gemv_block + 2 * (within % half) + within / half;
}

}  // namespace equibit
