// Few channels and filters a group: every vector of places reads what its taps need, of group after group,
// and keeps the sums in registers. `Isa` gives the vectors Floats of `lanes` values and a Reader of one Part,
// and on them: zero(), load, store, multiply_add(a, b, c), which is a + b c, broadcast(value), reader(part)
// and read(reader, plane).
#pragma once

#include <algorithm>

#include "equibit/tiles.h"

namespace equibit {

constexpr int most_readers = 160;  // that are ready at once: ten taps of sixteen parts

// The parts of the taps that a vector of lanes reads, and the taps that they belong to.
template <typename Isa>
struct Readers {
  typename Isa::Reader reader[most_readers];
  std::int64_t offset[most_readers];
  std::int64_t weight[most_readers];
  int count;
};

// The sums of `filters` filters of a group with those readers, added to what out holds unless they are the
// first.
template <typename Isa, int filters>
void add_readers(const Readers<Isa>& readers, bool first, const float* planes, const float* weights,
                 const Grouped& layer, std::int64_t filter_stride, float* out, std::int64_t lanes) {
  typename Isa::Floats sum[filters];
#pragma GCC unroll 4
  for (int f = 0; f < filters; ++f) sum[f] = first ? Isa::zero() : Isa::load(out + f * lanes);
  for (std::int64_t channel = 0; channel < layer.channels; ++channel) {
    for (int i = 0; i < readers.count; ++i) {
      const auto value = Isa::read(readers.reader[i], planes + channel * layer.stride + readers.offset[i]);
      const float* weight = weights + readers.weight[i] + channel;
#pragma GCC unroll 4
      for (int f = 0; f < filters; ++f) {
        sum[f] = Isa::multiply_add(sum[f], value, Isa::broadcast(weight[f * filter_stride]));
      }
    }
  }
#pragma GCC unroll 4
  for (int f = 0; f < filters; ++f) Isa::store(out + f * lanes, sum[f]);
}

// Group after group, all vectors of a tile: they read the same lines of the planes.
template <typename Isa>
void add_groups(const Readers<Isa>* readers, bool first, std::int64_t k, const Grouped& layer,
                const float* planes, float* out, std::int64_t lanes) {
  for (std::int64_t group = 0; group < layer.groups; ++group) {
    const float* weights = layer.weights + group * layer.weight_stride;
    for (std::int64_t filter = 0; filter < layer.filters;) {
      const bool four = filter + 4 <= layer.filters;
      for (std::int64_t lane = 0; lane < lanes; lane += Isa::lanes) {
        (four ? add_readers<Isa, 4> : add_readers<Isa, 1>)(readers[lane / Isa::lanes], first, planes,
                                                           weights + filter * k, layer, k, out + lane, lanes);
      }
      filter += four ? 4 : 1;
      out += (four ? 4 : 1) * lanes;
    }
    planes += layer.channels * layer.stride;
  }
}

template <typename Isa>
void add_tap(const Tap& tap, std::int64_t weight, Readers<Isa>* readers) {
  for (const Part* part = tap.gather.parts; part != tap.gather.parts + tap.gather.part_count; ++part) {
    if (part->lanes == 0) continue;
    Readers<Isa>& of_vector = readers[part->vector];
    of_vector.reader[of_vector.count] = Isa::reader(*part);
    of_vector.offset[of_vector.count] = tap.offset + part->offset;
    of_vector.weight[of_vector.count++] = weight;
  }
}

template <typename Isa>
void grouped_tile(const Tap* taps, std::int64_t count, const Grouped& layer, const float* planes,
                  float* out) {
  constexpr std::int64_t together =
      most_readers / Isa::lanes;  // taps: a vector has at most `lanes` parts of each
  Readers<Isa> readers[most_lanes / Isa::lanes];
  for (std::int64_t first = 0; first < count; first += together) {
    for (Readers<Isa>& of_vector : readers) of_vector.count = 0;
    for (std::int64_t tap = first; tap < std::min(first + together, count); ++tap) {
      add_tap<Isa>(taps[tap], tap * layer.channels, readers);
    }
    add_groups<Isa>(readers, first == 0, count * layer.channels, layer, planes, out, taps[0].gather.lanes);
  }
}

}  // namespace equibit
