// From sums to outputs and from floats to int8, over the vectors of one instruction set. Products and sums
// are rounded one by one (the one fused multiply-add is of exact integers), so that every level gives the
// same bits.
//
// `Isa` gives the vectors Floats and Ints of `lanes` values, a Tail that says which of them are there, and on
// them: first(count), load(from, tail), store(to, floats, tail), all(value), add, mul, fma, below(v, bound,
// other) and above(v, bound, other), which are v where it is not below or above the bound, not_below(v,
// bound, yes, no) (a NaN: no), float_of(ints), lookup(table, size, ints, tail), round(floats), which gives 0
// for a NaN and store_quads(to, four ints, count). For signs: mark(marks, ints, bounds), which is
// 2 marks + (ints <= bounds), ints(value), sub, reached(ints, bounds, count), a bit for each of `count` ints
// <= bounds, and store_words(to, low halves, high halves, flips, tail).
#pragma once

#include <algorithm>
#include <type_traits>

#include "equibit/tiles.h"

namespace equibit {

template <typename Isa, Activation activation>
typename Isa::Floats activate(typename Isa::Floats y, typename Isa::Floats slope, const Epilogue& epilogue) {
  if constexpr (activation == Activation::relu) return Isa::below(y, Isa::all(0), Isa::all(0));
  if constexpr (activation == Activation::prelu) return Isa::below(y, Isa::all(0), Isa::mul(y, slope));
  if constexpr (activation == Activation::hardtanh) {
    const auto low = Isa::all(epilogue.low), high = Isa::all(epilogue.high);
    return Isa::above(Isa::below(y, low, low), high, high);
  }
  return y;
}

// A vector of dot products: one row of sums or two.
template <typename Isa, typename Sum>
typename Isa::Floats load_dots(const Counts& counts, const Sum* row, std::int64_t second,
                               typename Isa::Tail tail) {
  auto sums = Isa::load(row, tail);
  if (counts.rows == 2) sums = Isa::add(sums, Isa::load(row + second, tail));
  if constexpr (std::is_integral_v<Sum>) {
    return Isa::fma(Isa::float_of(sums), Isa::all(static_cast<float>(counts.factor)),
                    Isa::all(static_cast<float>(counts.terms)));
  } else {
    return sums;
  }
}

// One vector of places of every filter. The structures are copies, which no store can be taken to change.
template <typename Isa, Activation activation, bool corrected, typename Sum>
void finish_vector(const Epilogue epilogue, const Results results, const Counts counts, const Sum* row) {
  using Floats = typename Isa::Floats;
  const auto tail = Isa::first(results.places);
  const Floats totals = epilogue.offset == nullptr ? Isa::all(0) : Isa::load(results.totals, tail);
  const auto classes = Isa::load(counts.classes, corrected ? tail : Isa::first(0));
  for (std::int64_t filter = 0; filter < results.filters; ++filter) {
    Floats y = load_dots<Isa>(counts, row, results.sum_stride, tail);
    row += counts.rows * results.sum_stride;
    if constexpr (corrected) {
      const std::int32_t* missing = counts.correction + filter * counts.correction_stride;
      y = Isa::add(y, Isa::float_of(Isa::lookup(missing, counts.correction_stride, classes, tail)));
    }
    y = Isa::mul(y, Isa::all(epilogue.scale[filter]));
    if (epilogue.offset != nullptr) y = Isa::add(y, Isa::mul(Isa::all(epilogue.offset[filter]), totals));
    if (epilogue.bias != nullptr) y = Isa::add(y, Isa::all(epilogue.bias[filter]));
    if (results.residual != nullptr) {
      y = Isa::add(y, Isa::load(results.residual + filter * results.residual_stride, tail));
    }
    const Floats slope = Isa::all(activation == Activation::prelu ? epilogue.slope[filter] : 0);
    Isa::store(results.y + filter * results.y_stride, activate<Isa, activation>(y, slope, epilogue), tail);
  }
}

template <typename Isa, Activation activation, typename Sum>
void finish_vectors(const Epilogue& epilogue, const Results& results, const Counts& counts, const Sum* sums) {
  const bool corrected = std::is_integral_v<Sum> && counts.correction != nullptr;
  for (std::int64_t at = 0; at < results.places; at += Isa::lanes) {
    Results part = results;
    Counts here = counts;
    part.places = std::min<std::int64_t>(results.places - at, Isa::lanes);
    part.y += at;
    if (part.totals != nullptr) part.totals += at;
    if (part.residual != nullptr) part.residual += at;
    if (corrected) here.classes += at;
    (corrected ? finish_vector<Isa, activation, true, Sum>
               : finish_vector<Isa, activation, false, Sum>)(epilogue, part, here, sums + at);
  }
}

// With a residual, a few filters at a time go by way of the cache: its rows and those of y often lie a
// multiple of 4096 bytes apart, and a load then waits for the stores before it.
template <typename Isa, Activation activation, typename Sum>
void finish_places(Epilogue epilogue, Results results, Counts counts, const Sum* sums) {
  if (results.residual == nullptr) return finish_vectors<Isa, activation>(epilogue, results, counts, sums);
  constexpr std::int64_t together = 64;
  alignas(64) float cached[together * most_lanes];
  const std::int64_t filters = results.filters, y_stride = results.y_stride;
  float* y = results.y;
  results.y = cached;
  results.y_stride = most_lanes;
  for (std::int64_t first = 0; first < filters; first += together) {
    results.filters = std::min(together, filters - first);
    finish_vectors<Isa, activation>(epilogue, results, counts, sums);
    for (std::int64_t filter = 0; filter < results.filters; ++filter) {
      for (std::int64_t at = 0; at < results.places; at += Isa::lanes) {
        const auto tail = Isa::first(results.places - at);
        Isa::store(y + filter * y_stride + at, Isa::load(cached + filter * most_lanes + at, tail), tail);
      }
    }
    y += together * y_stride;
    sums += together * counts.rows * results.sum_stride;
    results.residual += together * y_stride;
    counts.correction += together * counts.correction_stride;
    for (const float** values : {&epilogue.scale, &epilogue.offset, &epilogue.bias, &epilogue.slope}) {
      if (*values != nullptr) *values += together;
    }
  }
}

// The filters of one place are neighbours here.
template <typename Isa, Activation activation, typename Sum>
void finish_filters(const Epilogue& epilogue, const Results& results, const Counts& counts, const Sum* sums) {
  using Floats = typename Isa::Floats;
  alignas(64) Sum rows[2 * Isa::lanes];
  for (std::int64_t first = 0; first < results.filters; first += Isa::lanes) {
    const std::int64_t count = std::min<std::int64_t>(Isa::lanes, results.filters - first);
    const auto tail = Isa::first(count);
    const Sum* from = sums + first * counts.rows * results.sum_stride;
    for (std::int64_t i = 0; i < count; ++i) {
      rows[i] = from[i * counts.rows * results.sum_stride];
      if (counts.rows == 2) rows[Isa::lanes + i] = from[(2 * i + 1) * results.sum_stride];
    }
    Floats y =
        Isa::mul(load_dots<Isa>(counts, rows, Isa::lanes, tail), Isa::load(epilogue.scale + first, tail));
    if (epilogue.offset != nullptr) {
      y = Isa::add(y, Isa::mul(Isa::load(epilogue.offset + first, tail), Isa::all(results.totals[0])));
    }
    if (epilogue.bias != nullptr) y = Isa::add(y, Isa::load(epilogue.bias + first, tail));
    if (results.residual != nullptr) y = Isa::add(y, Isa::load(results.residual + first, tail));
    const Floats slope =
        activation == Activation::prelu ? Isa::load(epilogue.slope + first, tail) : Isa::all(0);
    Isa::store(results.y + first, activate<Isa, activation>(y, slope, epilogue), tail);
  }
}

template <typename Isa, typename Sum>
void finish_tile(const Epilogue& epilogue, const Results& results, const Counts& counts, const Sum* sums) {
  switch (epilogue.activation) {
    case Activation::none:
      return finish_places<Isa, Activation::none>(epilogue, results, counts, sums);
    case Activation::relu:
      return finish_places<Isa, Activation::relu>(epilogue, results, counts, sums);
    case Activation::prelu:
      return finish_places<Isa, Activation::prelu>(epilogue, results, counts, sums);
    case Activation::hardtanh:
      return finish_places<Isa, Activation::hardtanh>(epilogue, results, counts, sums);
  }
}

template <typename Isa, typename Sum>
void finish_row(const Epilogue& epilogue, const Results& results, const Counts& counts, const Sum* sums) {
  switch (epilogue.activation) {
    case Activation::none:
      return finish_filters<Isa, Activation::none>(epilogue, results, counts, sums);
    case Activation::relu:
      return finish_filters<Isa, Activation::relu>(epilogue, results, counts, sums);
    case Activation::prelu:
      return finish_filters<Isa, Activation::prelu>(epilogue, results, counts, sums);
    case Activation::hardtanh:
      return finish_filters<Isa, Activation::hardtanh>(epilogue, results, counts, sums);
  }
}

// A vector of places of up to 32 filters: bit f of a place's mark is whether filter f's dot product reaches
// its threshold. From the last filter to the first, each mark doubled before the next bit comes in.
template <typename Isa, bool corrected>
typename Isa::Ints mark_signs(const Signs& signs, const Counts& counts, const std::int32_t* sums,
                              std::int64_t first, typename Isa::Tail tail, typename Isa::Ints classes) {
  const std::int64_t last = std::min<std::int64_t>(signs.filters, first + 32);
  const std::int64_t second = counts.rows == 2 ? signs.sum_stride : 0;
  auto marks = Isa::ints(0);
  for (std::int64_t filter = last - 1; filter >= first; --filter) {
    const std::int32_t* row = sums + filter * counts.rows * signs.sum_stride;
    auto missing = Isa::add(Isa::load(row, tail), Isa::load(row + second, tail));
    if constexpr (corrected) {
      const std::int32_t* table = counts.correction + filter * counts.correction_stride;
      missing = Isa::sub(missing, Isa::lookup(table, counts.correction_stride, classes, tail));
    }
    marks = Isa::mark(marks, missing, Isa::ints(signs.bounds[filter]));
  }
  return marks;
}

template <typename Isa, bool corrected>
void sign_vectors(const Signs& signs, const Counts& counts, const std::int32_t* sums) {
  for (std::int64_t at = 0; at < signs.places; at += Isa::lanes) {
    const auto tail = Isa::first(signs.places - at);
    const auto classes = Isa::load(corrected ? counts.classes + at : sums, corrected ? tail : Isa::first(0));
    for (std::int64_t first = 0; first < signs.filters; first += word_bits) {
      const auto low = mark_signs<Isa, corrected>(signs, counts, sums + at, first, tail, classes);
      const auto high = mark_signs<Isa, corrected>(signs, counts, sums + at, first + 32, tail, classes);
      Word* to = signs.words + first / word_bits * signs.word_stride + at;
      Isa::store_words(to, low, high, signs.flips[first / word_bits], tail);
    }
  }
}

template <typename Isa>
void sign_tile(const Signs& signs, const Counts& counts, const std::int32_t* sums) {
  (counts.correction == nullptr ? sign_vectors<Isa, false> : sign_vectors<Isa, true>)(signs, counts, sums);
}

template <typename Isa>
void sign_row(const Signs& signs, const Counts& counts, const std::int32_t* sums) {
  alignas(64) std::int32_t rows[2 * Isa::lanes];
  for (std::int64_t word = 0; word < words_for(signs.filters); ++word) {
    const std::int64_t last = std::min(signs.filters, (word + 1) * word_bits);
    Word found = 0;
    for (std::int64_t first = word * word_bits; first < last; first += Isa::lanes) {
      const std::int64_t count = std::min<std::int64_t>(Isa::lanes, last - first);
      const auto tail = Isa::first(count);
      for (std::int64_t i = 0; i < count; ++i) {
        rows[i] = sums[(first + i) * counts.rows];
        rows[Isa::lanes + i] = sums[(first + i) * counts.rows + counts.rows - 1];
      }
      const auto missing = Isa::add(Isa::load(rows, tail), Isa::load(rows + Isa::lanes, tail));
      found |= Word{Isa::reached(missing, Isa::load(signs.bounds + first, tail), count)}
               << (first - word * word_bits);
    }
    signs.words[word * signs.word_stride] = found ^ signs.flips[word];
  }
}

template <typename Isa>
void quantize_planes(const float* x, std::int64_t channels, std::int64_t places, float scale,
                     std::int8_t* planes) {
  const auto steps = Isa::all(scale), low = Isa::all(-127), high = Isa::all(127);
  for (std::int64_t first = 0; first < channels; first += 4) {
    for (std::int64_t place = 0; place < places; place += Isa::lanes) {
      const std::int64_t count = std::min<std::int64_t>(Isa::lanes, places - place);
      typename Isa::Ints quads[4];
      for (std::int64_t i = 0; i < 4; ++i) {
        const bool there = first + i < channels;
        const float* from = there ? x + (first + i) * places + place : x;
        const auto value = Isa::div(Isa::load(from, Isa::first(there ? count : 0)), steps);
        quads[i] = Isa::round(Isa::above(Isa::below(value, low, low), high, high));
      }
      Isa::store_quads(planes + (first / 4 * places + place) * 4, quads, count);
    }
  }
}

// step(at, tail) for every vector of `count` values.
template <typename Isa, typename Step>
void each_vector(std::int64_t count, const Step& step) {
  const auto whole = Isa::first(Isa::lanes);
  std::int64_t at = 0;
  for (; at + Isa::lanes <= count; at += Isa::lanes) step(at, whole);
  if (at < count) step(at, Isa::first(count - at));
}

template <typename Isa>
void sign_f32(const float* x, std::int64_t count, float* out) {
  const auto zero = Isa::all(0), plus = Isa::all(1), minus = Isa::all(-1);
  each_vector<Isa>(count, [=](std::int64_t at, auto tail) {
    Isa::store(out + at, Isa::not_below(Isa::load(x + at, tail), zero, plus, minus), tail);
  });
}

template <typename Isa>
void quantize_f32(const float* x, std::int64_t count, float scale, float* out) {
  const auto steps = Isa::all(scale), low = Isa::all(-127), high = Isa::all(127);
  each_vector<Isa>(count, [=](std::int64_t at, auto tail) {
    const auto value = Isa::div(Isa::load(x + at, tail), steps);
    Isa::store(out + at, Isa::float_of(Isa::round(Isa::above(Isa::below(value, low, low), high, high))),
               tail);
  });
}

template <typename Isa>
void fill_finish(TileKernels& tiles) {
  tiles.sign_f32 = sign_f32<Isa>;
  tiles.quantize_f32 = quantize_f32<Isa>;
  tiles.quantize_planes = quantize_planes<Isa>;
  tiles.finish_f32 = finish_tile<Isa, float>;
  tiles.finish_i32 = finish_tile<Isa, std::int32_t>;
  tiles.finish_row_f32 = finish_row<Isa, float>;
  tiles.finish_row_i32 = finish_row<Isa, std::int32_t>;
  tiles.sign_i32 = sign_tile<Isa>;
  tiles.sign_row_i32 = sign_row<Isa>;
}

}  // namespace equibit
