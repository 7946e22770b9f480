// A single row of inputs: the table of a few neighbouring inputs is a register, and a permutation looks the
// sums of many filters up in it at once, each by its own weights.
//
//   y[filter] += table[weights of the filter], table[n] = sum over i of (bit i of n ? x[i] : -x[i])
//
// A column is 15 inputs: a word of each filter of a block. A register of columns holds two filters in each
// 32-bit lane; the low half is looked up as it is, the high half after a shift.
#pragma once

#include <cstdint>
#include <type_traits>

#include "equibit/tiles.h"
#include "layouts.h"

namespace equibit {

// How far ahead of the weights that are read those are asked for that are still in main memory.
constexpr std::int64_t prefetch_bytes = 2048;

// Columns that are added up on their own first, which keeps a long sum accurate.
constexpr std::int64_t column_run = 16;

// Sums of the int8 inputs of as many columns as have tables at once are exact in float32.
static_assert(gemv_most_columns * gemv_inputs * 128 < 1 << 24);

// `Isa` is a type of its source file's unnamed namespace, which keeps every function here local to that file.
// It has
//   Vector, Indices  registers of floats and of 32-bit integers, of `lanes` lanes
//   bits             inputs of a table, which has 2^bits entries
//   blocks           blocks of filters whose sums are in registers at once
//   zero, broadcast, load, store, load_indices, add
//   shift<n>         indices, each to the right by n
//   look_up          entries of a table by the lowest `bits` bits of indices
//   multiply_add     a + b c, rounded once
//   add_fused        a sum by a multiplication by one, which other units of the processor do
template <typename Isa>
constexpr int entries = 1 << Isa::bits;

template <typename Isa>
constexpr int tables_of_column = gemv_inputs / Isa::bits;

// Inputs that tell apart the entries of a register; the others are the same in all of them.
template <typename Isa>
constexpr int inputs_of_register = Isa::lanes == 16  ? 4
                                   : Isa::lanes == 8 ? 3
                                                     : 2;

template <typename Isa>
struct EntrySigns {
  float of[inputs_of_register<Isa>][Isa::lanes];

  constexpr EntrySigns() : of{} {
    for (int i = 0; i < inputs_of_register<Isa>; ++i) {
      for (int n = 0; n < Isa::lanes; ++n) of[i][n] = n >> i & 1 ? 1.0F : -1.0F;
    }
  }
};

// The tables of one column; inputs from `count` on are zero.
template <typename Isa, typename Input>
void build_tables(const Input* x, std::int64_t count, float* tables) {
  static_assert(tables_of_column<Isa> * Isa::bits == gemv_inputs);
  static_assert(1 << inputs_of_register<Isa> == Isa::lanes);
  static constexpr EntrySigns<Isa> signs;
  float inputs[gemv_inputs] = {};
  for (std::int64_t i = 0; i < gemv_inputs && i < count; ++i) inputs[i] = static_cast<float>(x[i]);
  for (int table = 0; table < tables_of_column<Isa>; ++table) {
    const float* of_table = inputs + table * Isa::bits;
    typename Isa::Vector first = Isa::zero();
    for (int i = 0; i < inputs_of_register<Isa>; ++i) {
      first = Isa::multiply_add(first, Isa::load(signs.of[i]), Isa::broadcast(of_table[i]));
    }
    for (int n = 0; n < entries<Isa>; n += Isa::lanes) {
      typename Isa::Vector sum = first;
      for (int i = inputs_of_register<Isa>; i < Isa::bits; ++i) {
        sum = Isa::add(sum, Isa::broadcast(n >> i & 1 ? of_table[i] : -of_table[i]));
      }
      Isa::store(tables + table * entries<Isa> + n, sum);
    }
  }
}

// Adds what the tables of a column from `table` on give to the filters in the low and in the high halves of a
// register of weights: two at a time, then the odd one.
template <typename Isa, int table>
void add_column(const float* tables, typename Isa::Indices weights, typename Isa::Vector& low,
                typename Isa::Vector& high) {
  const auto look_up = [&](auto number, auto half) {
    constexpr int shift = number * Isa::bits + half;
    return Isa::look_up(tables + number * entries<Isa>, Isa::template shift<shift>(weights));
  };
  constexpr std::integral_constant<int, table> first;
  constexpr std::integral_constant<int, 0> low_half;
  constexpr std::integral_constant<int, 16> high_half;
  if constexpr (table + 1 < tables_of_column<Isa>) {
    constexpr std::integral_constant<int, table + 1> second;
    low = Isa::add_fused(low, Isa::add(look_up(first, low_half), look_up(second, low_half)));
    high = Isa::add_fused(high, Isa::add(look_up(first, high_half), look_up(second, high_half)));
    add_column<Isa, table + 2>(tables, weights, low, high);
  } else if constexpr (table < tables_of_column<Isa>) {
    low = Isa::add_fused(low, look_up(first, low_half));
    high = Isa::add_fused(high, look_up(first, high_half));
  }
}

// Adds to sums [blocks * registers] of the low and of the high halves, over some columns. Weights of
// neighbouring blocks of filters are `stride` bytes apart.
template <typename Isa, int blocks>
void add_columns(const float* tables, std::int64_t columns, const std::uint8_t* weights, std::int64_t stride,
                 typename Isa::Vector* low_sums, typename Isa::Vector* high_sums) {
  constexpr int registers = gemv_block / 2 / Isa::lanes;
  typename Isa::Vector low[blocks * registers], high[blocks * registers];
#pragma GCC unroll 8
  for (int i = 0; i < blocks * registers; ++i) low[i] = high[i] = Isa::zero();
  for (std::int64_t column = 0; column < columns; ++column) {
#pragma GCC unroll 8
    for (int i = 0; i < blocks * registers; ++i) {
      const std::uint8_t* place = weights + i / registers * stride + i % registers * Isa::lanes * 4;
      if (i % registers == 0) __builtin_prefetch(place + prefetch_bytes);
      add_column<Isa, 0>(tables, Isa::load_indices(place), low[i], high[i]);
    }
    weights += 2 * gemv_block;
    tables += tables_of_column<Isa> * entries<Isa>;
  }
#pragma GCC unroll 8
  for (int i = 0; i < blocks * registers; ++i) {
    low_sums[i] = Isa::add(low_sums[i], low[i]);
    high_sums[i] = Isa::add(high_sums[i], high[i]);
  }
}

// sums [blocks][gemv_block] over all columns.
template <typename Isa, int blocks>
void sum_columns(const float* tables, std::int64_t columns, const std::uint8_t* weights, std::int64_t stride,
                 float* sums) {
  constexpr int registers = gemv_block / 2 / Isa::lanes;
  typename Isa::Vector low[blocks * registers], high[blocks * registers];
  for (int i = 0; i < blocks * registers; ++i) low[i] = high[i] = Isa::zero();
  for (std::int64_t first = 0; first < columns; first += column_run) {
    const std::int64_t run = columns - first < column_run ? columns - first : column_run;
    add_columns<Isa, blocks>(tables + first * tables_of_column<Isa> * entries<Isa>, run,
                             weights + 2 * first * gemv_block, stride, low, high);
  }
  for (int i = 0; i < blocks * registers; ++i) {
    float* block = sums + i / registers * gemv_block + i % registers * Isa::lanes;
    Isa::store(block, low[i]);
    Isa::store(block + gemv_block / 2, high[i]);
  }
}

// Tables of floats, for inputs of any type whose sums are exact in them or are floats anyway.
template <typename Isa, typename In, typename Out>
struct FloatTables {
  using Input = In;
  using Sum = Out;
  static constexpr int blocks = Isa::blocks;
  static constexpr std::int64_t column_floats = tables_of_column<Isa> * entries<Isa>;
  static constexpr std::int64_t column_bytes = 4 * column_floats;

  static void build(const Input* x, std::int64_t count, void* tables) {
    build_tables<Isa>(x, count, static_cast<float*>(tables));
  }

  template <int blocks>
  static void sum(const void* tables, std::int64_t columns, const std::uint8_t* weights, std::int64_t stride,
                  Sum* sums) {
    float floats[blocks * gemv_block];
    sum_columns<Isa, blocks>(static_cast<const float*>(tables), columns, weights, stride, floats);
    for (std::int64_t i = 0; i < blocks * gemv_block; ++i) sums[i] = static_cast<Sum>(floats[i]);
  }
};

// The sums of `count` filters over columns whose tables are there; `first`: there are none yet in y.
template <typename Tables, int blocks>
void sum_filters(const void* tables, std::int64_t columns, const std::uint8_t* weights, std::int64_t stride,
                 std::int64_t count, bool first, typename Tables::Sum* y) {
  typename Tables::Sum sums[blocks * gemv_block];
  Tables::template sum<blocks>(tables, columns, weights, stride, sums);
  for (std::int64_t i = 0; i < blocks * gemv_block && i < count; ++i) y[i] = first ? sums[i] : y[i] + sums[i];
}

// The same of `count` filters: `blocks` blocks at once, then half as many where those are too many.
template <typename Tables, int blocks>
void sum_all_filters(const void* tables, std::int64_t columns, const std::uint8_t* weights,
                     std::int64_t stride, std::int64_t count, bool first, typename Tables::Sum* y) {
  constexpr std::int64_t together = blocks * gemv_block;
  while (count > together - gemv_block) {
    sum_filters<Tables, blocks>(tables, columns, weights, stride, count, first, y);
    weights += blocks * stride;
    y += together;
    count -= together;
  }
  if constexpr (blocks > 1) {
    sum_all_filters<Tables, blocks / 2>(tables, columns, weights, stride, count, first, y);
  }
}

// The kernel.
template <typename Tables>
void gemv(const typename Tables::Input* x, std::int64_t bytes, const std::uint8_t* filters,
          std::int64_t count, void* scratch, typename Tables::Sum* y) {
  char* tables = static_cast<char*>(scratch);
  const std::int64_t columns = gemv_columns(bytes), stride = 2 * columns * gemv_block;
  for (std::int64_t first = 0; first < columns; first += gemv_most_columns) {
    const std::int64_t some = columns - first < gemv_most_columns ? columns - first : gemv_most_columns;
    for (std::int64_t column = 0; column < some; ++column) {
      const std::int64_t input = (first + column) * gemv_inputs;
      Tables::build(x + input, 8 * bytes - input, tables + column * Tables::column_bytes);
    }
    sum_all_filters<Tables, Tables::blocks>(tables, some, filters + 2 * first * gemv_block, stride, count,
                                            first == 0, y);
  }
}

}  // namespace equibit
