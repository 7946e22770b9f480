// The table kernels ("method of four Russians"): the sums of a tile by loads and additions only.
//
// Of four neighbouring panel rows there are sixteen sums +-x0 +-x1 +-x2 +-x3. They are tabulated, each a
// vector of places, and half a byte of a filter's weights is the address of the one it needs: a filter costs
// one load and one addition for four rows. Building a table costs sixteen stores, which pay from some thirty
// filters on. The tables of `table_bytes` bytes of weights stay in the first-level cache while all filters
// read them.
#pragma once

#include <cstdint>
#include <cstring>

#include "equibit/tiles.h"
#include "layouts.h"

namespace equibit {

// Bytes of a filter's weights whose tables are there at once: 24 tables, of a KiB each, leave room in 32 KiB
// of cache.
constexpr std::int64_t table_bytes = 12;

// `Table` is a type of its source file's unnamed namespace, which keeps every function here local to that
// file. It has
//   Input, Sum       the elements of panel and sums
//   Vector           a register of sums, with zero, load, store, add, subtract, negate
//   vectors, lanes   an entry of a table is so many registers, the sums of so many places
//   filters          whose sums are in registers at once, 4 or 8
//   load_rows        panel rows 4 group .. 4 group + 3 from a lane on, into four registers
//   add_to           adds a register to its sums, or is the first to write them
template <typename Table>
constexpr std::int64_t entry_bytes = Table::vectors * sizeof(typename Table::Vector);

// Entry n: bit i of n is set where row i is added, clear where it is subtracted. An entry and the one with
// all bits reversed are negatives of each other.
template <typename Table>
void build_table(const typename Table::Input* panel, std::int64_t group, std::int64_t lanes,
                 std::int64_t lane, char* table) {
  using Vector = typename Table::Vector;
  for (int v = 0; v < Table::vectors; ++v) {
    const auto store_both = [&](int n, Vector sum) {
      Table::store(table + n * entry_bytes<Table> + v * sizeof(Vector), sum);
      Table::store(table + (15 - n) * entry_bytes<Table> + v * sizeof(Vector), Table::negate(sum));
    };
    Vector x[4];
    Table::load_rows(panel, group, lanes, lane + v * (Table::lanes / Table::vectors), x);
    const Vector sum01 = Table::add(x[0], x[1]), difference01 = Table::subtract(x[0], x[1]);
    const Vector sum23 = Table::add(x[2], x[3]), difference23 = Table::subtract(x[2], x[3]);
    store_both(15, Table::add(sum01, sum23));
    store_both(13, Table::add(difference01, sum23));
    store_both(7, Table::add(sum01, difference23));
    store_both(5, Table::add(difference01, difference23));
    store_both(3, Table::subtract(sum01, sum23));
    store_both(1, Table::subtract(difference01, sum23));
    store_both(11, Table::subtract(sum01, difference23));
    store_both(9, Table::subtract(difference01, difference23));
  }
}

// Adds the entries that `bytes` bytes of each of Table::filters filters address to their sums. They are added
// up on their own first, which keeps a long sum of floats accurate and one of words within 16 bits.
template <typename Table>
void look_up(const char* tables, std::int64_t bytes, const std::uint8_t* weights, bool first,
             std::int64_t stride, typename Table::Sum* sums) {
  using Vector = typename Table::Vector;
  constexpr int vectors = Table::vectors;
  constexpr std::int64_t vector_lanes = Table::lanes / vectors;
  Vector sum[Table::filters][vectors];
#pragma GCC unroll 8
  for (int i = 0; i < Table::filters; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[i][v] = Table::zero();
  }
  for (std::int64_t byte = 0; byte < bytes; ++byte) {
    std::uint64_t packed = 0;
    std::memcpy(&packed, weights + byte * table_block, Table::filters);
#pragma GCC unroll 8
    for (int i = 0; i < Table::filters; ++i) {
      // A half byte times 16; the scale of the address does the rest.
      const std::uint64_t low = (i == 0 ? packed << 4 : packed >> (8 * i - 4)) & 0xF0;
      const std::uint64_t high = packed >> 8 * i & 0xF0;
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        const char* places = tables + v * sizeof(Vector);
        sum[i][v] = Table::add(sum[i][v], Table::load(places + low * (entry_bytes<Table> / 16)));
        sum[i][v] = Table::add(
            sum[i][v], Table::load(places + 16 * entry_bytes<Table> + high * (entry_bytes<Table> / 16)));
      }
    }
    tables += 32 * entry_bytes<Table>;
  }
#pragma GCC unroll 8
  for (int i = 0; i < Table::filters; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) Table::add_to(sums + i * stride + v * vector_lanes, sum[i][v], first);
  }
}

// The sums of all filters for Table::lanes places from `lane` on, where `to` says; add: to what is there.
template <typename Table>
void sum_places(const typename Table::Input* panel, std::int64_t bytes, std::int64_t lanes, std::int64_t lane,
                const std::uint8_t* filters, std::int64_t count, const TapRows& to, bool add, void* scratch,
                typename Table::Sum* sums) {
  char* tables = static_cast<char*>(scratch);
  const std::int64_t block_bytes = to.rows * bytes * table_block;
  for (std::int64_t first = 0; first < bytes; first += table_bytes) {
    const std::int64_t some = bytes - first < table_bytes ? bytes - first : table_bytes;
    for (std::int64_t group = 0; group < 2 * some; ++group) {
      build_table<Table>(panel, 2 * first + group, lanes, lane, tables + group * 16 * entry_bytes<Table>);
    }
    const std::uint8_t* weights = filters + first * table_block;
    for (std::int64_t filter = 0; filter < count; filter += table_block, weights += block_bytes) {
      for (std::int64_t row = 0; row < to.rows; ++row) {
        const std::uint8_t* of_row = weights + row * bytes * table_block;
        typename Table::Sum* place = sums + filter * to.stride + row * to.step + lane;
        __builtin_prefetch(of_row + block_bytes);  // of the next filters, where no hardware expects them
        __builtin_prefetch(of_row + block_bytes + 64);
        for (int part = 0; part < table_block; part += Table::filters) {
          look_up<Table>(tables, some, of_row + part, !add && first == 0, to.stride,
                         place + part * to.stride);
        }
      }
    }
  }
}

// As many places as `Wide` takes at a time, then the rest.
template <typename Wide, typename Narrow>
void sum_tile(const typename Wide::Input* panel, std::int64_t bytes, std::int64_t lanes,
              const std::uint8_t* filters, std::int64_t count, const TapRows& to, bool add, void* scratch,
              typename Wide::Sum* sums) {
  std::int64_t lane = 0;
  for (; lane + Wide::lanes <= lanes; lane += Wide::lanes) {
    sum_places<Wide>(panel, bytes, lanes, lane, filters, count, to, add, scratch, sums);
  }
  for (; lane < lanes; lane += Narrow::lanes) {
    sum_places<Narrow>(panel, bytes, lanes, lane, filters, count, to, add, scratch, sums);
  }
}

// The kernels.
template <typename Wide, typename Narrow>
void table_tile(const typename Wide::Input* panel, std::int64_t bytes, std::int64_t lanes,
                const std::uint8_t* filters, std::int64_t count, void* scratch, typename Wide::Sum* out) {
  sum_tile<Wide, Narrow>(panel, bytes, lanes, filters, count, {1, lanes, 0}, false, scratch, out);
}

template <typename Wide, typename Narrow>
void table_rows(const typename Wide::Input* panel, std::int64_t bytes, std::int64_t lanes,
                const std::uint8_t* filters, std::int64_t count, const TapRows& to, void* scratch,
                typename Wide::Sum* sums) {
  sum_tile<Wide, Narrow>(panel, bytes, lanes, filters, count, to, true, scratch, sums);
}

}  // namespace equibit
