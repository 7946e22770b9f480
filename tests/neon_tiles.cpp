// Runs the NEON kernels of tiles on what it reads, for a machine that emulates ARM: a line with a kernel's
// name and sizes, then its arrays; the answer is the array of results.

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "equibit/kernels.h"
#include "gemv_levels.h"
#include "table_levels.h"
#include "xnor_levels.h"

using namespace equibit;

namespace {

// An array on a 64-byte border.
template <typename Value>
class Array {
 public:
  explicit Array(std::int64_t size) : size_(size), memory_(sizeof(Value) * size + 64) {
    data = reinterpret_cast<Value*>((reinterpret_cast<std::uintptr_t>(memory_.data()) + 63) / 64 * 64);
  }
  void read() { std::cin.read(reinterpret_cast<char*>(data), sizeof(Value) * size_); }
  void write() const { std::cout.write(reinterpret_cast<const char*>(data), sizeof(Value) * size_).flush(); }

  Value* data;

 private:
  std::int64_t size_;
  std::vector<std::uint8_t> memory_;
};

template <typename Value>
Array<Value> read(std::int64_t size) {
  Array<Value> array(size);
  array.read();
  return array;
}

void xnor_tile(const Kernels& kernels, std::int64_t words, std::int64_t lanes, std::int64_t count) {
  const std::int64_t blocks = blocks_for(count);
  const auto panel = read<Word>(words * lanes), rows = read<Word>(count * words);
  Array<Word> filters(filter_block * blocks * words);
  Array<std::int32_t> out(filter_block * blocks * lanes);
  lay_out_words(rows.data, count, words, filters.data);
  kernels.tiles.fold_words(panel.data, words, lanes);
  kernels.tiles.xnor_tile(panel.data, words, lanes, filters.data, blocks, out.data);
  out.write();
}

void gemv_xnor(const Kernels& kernels, std::int64_t words, std::int64_t count) {
  const auto x = read<Word>(words), rows = read<Word>(count * words);
  Array<std::int32_t> y(count);
  kernels.tiles.gemv_xnor(x.data, words, rows.data, count, y.data);
  y.write();
}

void pack_planes(const Kernels& kernels, std::int64_t channels, std::int64_t places) {
  const auto x = read<float>(channels * places);
  Array<Word> planes(words_for(channels) * places);
  kernels.tiles.pack_planes(x.data, channels, places, planes.data);
  planes.write();
}

void pack_rows(const Kernels& kernels, std::int64_t rows, std::int64_t n) {
  const auto x = read<float>(rows * n);
  Array<Word> packed(rows * words_for(n));
  kernels.pack_f32(x.data, rows, n, packed.data);
  packed.write();
}

template <typename Value, typename Sum>
void table_tile(void (*kernel)(const Value*, std::int64_t, std::int64_t, const std::uint8_t*, std::int64_t,
                               void*, Sum*),
                std::int64_t bytes, std::int64_t lanes, std::int64_t count) {
  const auto panel = read<Value>(8 * bytes * lanes);
  const auto rows = read<std::uint8_t>(count * bytes);
  Array<std::uint8_t> filters(table_size(count, bytes)), scratch(table_scratch);
  Array<Sum> out((count + table_block - 1) / table_block * table_block * lanes);
  lay_out_table(rows.data, count, bytes, filters.data);
  kernel(panel.data, bytes, lanes, filters.data, count, scratch.data, out.data);
  out.write();
}

template <typename Value, typename Sum>
void gemv(void (*kernel)(const Value*, std::int64_t, const std::uint8_t*, std::int64_t, void*, Sum*),
          std::int64_t bytes, std::int64_t count) {
  const auto x = read<Value>(8 * bytes);
  const auto rows = read<std::uint8_t>(count * bytes);
  Array<std::uint8_t> filters(gemv_size(count, bytes)), scratch(gemv_scratch(bytes));
  Array<Sum> y(count);
  lay_out_gemv(rows.data, count, bytes, filters.data);
  kernel(x.data, bytes, filters.data, count, scratch.data, y.data);
  y.write();
}

void run(const Kernels& kernels, const std::string& name, std::int64_t a, std::int64_t b, std::int64_t c) {
  if (name == "xnor_tile") return xnor_tile(kernels, a, b, c);
  if (name == "gemv_xnor") return gemv_xnor(kernels, a, b);
  if (name == "pack_planes") return pack_planes(kernels, a, b);
  if (name == "pack_rows") return pack_rows(kernels, a, b);
  if (name == "table_tile_f32") return table_tile(kernels.tiles.table_tile_f32, a, b, c);
  if (name == "table_tile_i8") return table_tile(kernels.tiles.table_tile_i8, a, b, c);
  if (name == "gemv_f32") return gemv(kernels.tiles.gemv_f32, a, b);
  if (name == "gemv_i8") return gemv(kernels.tiles.gemv_i8, a, b);
  std::exit(2);
}

}  // namespace

int main() {
  Kernels kernels{};
  fill_xnor_neon(kernels);
  fill_table_neon(kernels.tiles);
  fill_gemv_neon(kernels.tiles);
  std::string name;
  std::int64_t a, b, c;
  while (std::cin >> name >> a >> b >> c) {
    std::cin.get();  // the end of the line
    run(kernels, name, a, b, c);
  }
}
