#include <algorithm>

#include "equibit/tiles.h"
#include "layouts.h"

namespace equibit {

void lay_out_words(const Word* rows, std::int64_t filters, std::int64_t words, Word* out) {
  for (std::int64_t first = 0; first < filters; first += filter_block) {
    Word parity[filter_block] = {};
    for (std::int64_t word = 0; word < words; ++word) {
      for (std::int64_t i = 0; i < filter_block; ++i) {
        const std::int64_t filter = first + i;
        if (filter < filters) parity[i] ^= rows[filter * words + word];
        *out++ = parity[i];
      }
    }
  }
}

std::int64_t table_size(std::int64_t filters, std::int64_t bytes) {
  return (filters + table_block - 1) / table_block * table_block * bytes;
}

void lay_out_table(const std::uint8_t* rows, std::int64_t filters, std::int64_t bytes, std::uint8_t* out) {
  std::fill(out, out + table_size(filters, bytes), std::uint8_t{0});
  for (std::int64_t filter = 0; filter < filters; ++filter) {
    for (std::int64_t byte = 0; byte < bytes; ++byte) out[table_place(filter, byte, bytes)] = *rows++;
  }
}

std::int64_t gemv_size(std::int64_t filters, std::int64_t bytes) {
  return (filters + gemv_block - 1) / gemv_block * gemv_block * 2 * gemv_columns(bytes);
}

void lay_out_gemv(const std::uint8_t* rows, std::int64_t filters, std::int64_t bytes, std::uint8_t* out) {
  std::fill(out, out + gemv_size(filters, bytes), std::uint8_t{0});
  auto* words = reinterpret_cast<std::uint16_t*>(out);
  const std::int64_t columns = gemv_columns(bytes);
  for (std::int64_t filter = 0; filter < filters; ++filter, rows += bytes) {
    for (std::int64_t column = 0; column < columns; ++column) {
      const std::int64_t first = column * gemv_inputs, last = std::min(first / 8 + 3, bytes);
      std::uint32_t bits = 0;
      for (std::int64_t byte = last - 1; byte >= first / 8; --byte) bits = bits << 8 | rows[byte];
      const std::uint32_t inputs = bits >> first % 8 & ((1U << gemv_inputs) - 1);
      words[gemv_place(filter, column, columns)] = static_cast<std::uint16_t>(inputs);
    }
  }
}

void lay_out_dense(const std::uint8_t* rows, std::int64_t filters, std::int64_t k, float* out) {
  const std::int64_t bytes = (k + 7) / 8;
  for (std::int64_t filter = 0; filter < filters; ++filter) {
    for (std::int64_t i = 0; i < k; ++i) {
      *out++ = rows[filter * bytes + i / 8] >> (i % 8) & 1 ? 1.0F : -1.0F;
    }
  }
}

}  // namespace equibit
