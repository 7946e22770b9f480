// One multiplication for each weight, where too few filters share a table: depthwise convolutions, for one.
#pragma once

#include <cstdint>

namespace equibit {

// `Floats` is a type as table.h describes it, that has
//   broadcast(value)
//   multiply_add(a, b, c)  a + b c, rounded once where the instruction set can.
template <typename Floats, int filters>
void sum_dense(const float* panel, std::int64_t k, std::int64_t lanes, const float* weights, float* out) {
  using Vector = typename Floats::Vector;
  constexpr std::int64_t vector_lanes = Floats::lanes / Floats::vectors;
  Vector sum[filters][Floats::vectors];
#pragma GCC unroll 4
  for (int i = 0; i < filters; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < Floats::vectors; ++v) sum[i][v] = Floats::zero();
  }
  for (std::int64_t row = 0; row < k; ++row, panel += lanes) {
#pragma GCC unroll 4
    for (int i = 0; i < filters; ++i) {
      const Vector weight = Floats::broadcast(weights[i * k + row]);
#pragma GCC unroll 4
      for (int v = 0; v < Floats::vectors; ++v) {
        sum[i][v] = Floats::multiply_add(sum[i][v], Floats::load(panel + v * vector_lanes), weight);
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < filters; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < Floats::vectors; ++v) Floats::store(out + i * lanes + v * vector_lanes, sum[i][v]);
  }
}

template <typename Floats>
void dense_tile(const float* panel, std::int64_t k, std::int64_t lanes, const float* weights,
                std::int64_t count, float* out) {
  for (std::int64_t lane = 0; lane < lanes; lane += Floats::lanes) {
    std::int64_t filter = 0;
    for (; filter + 4 <= count; filter += 4) {
      sum_dense<Floats, 4>(panel + lane, k, lanes, weights + filter * k, out + filter * lanes + lane);
    }
    for (; filter < count; ++filter) {
      sum_dense<Floats, 1>(panel + lane, k, lanes, weights + filter * k, out + filter * lanes + lane);
    }
  }
}

}  // namespace equibit
