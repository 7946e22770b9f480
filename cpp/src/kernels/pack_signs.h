// Signs of floats as words: a bit is set where x >= 0, so at 0.0 and -0.0 and not at NaN.
#pragma once

#include <utility>

#include "equibit/word.h"

namespace equibit {

// `Isa` provides `signs`, the bits of `floats` floats that lie side by side; vectors of as many 32-bit marks,
// in which `mark` sets a bit by sign; and `join`, which puts two of them together to words.

template <typename Isa>
Word pack_word(const float* x, std::int64_t stride, std::int64_t count) {
  Word word = 0;
  for (std::int64_t i = 0; i < count; ++i) word |= Word{x[i * stride] >= 0} << i;
  return word;
}

template <typename Isa>
void pack_rows(const float* x, std::int64_t rows, std::int64_t n, Word* packed) {
  for (; rows > 0; --rows) {
    for (std::int64_t left = n; left > 0; left -= word_bits) {
      const std::int64_t count = left < word_bits ? left : word_bits;
      const std::int64_t whole = count - count % Isa::floats;
      Word word = 0;
      for (std::int64_t i = 0; i < whole; i += Isa::floats) word |= Isa::signs(x + i) << i;
      if (whole < count) word |= pack_word<Isa>(x + whole, 1, count - whole) << whole;
      *packed++ = word;
      x += count;
    }
  }
}

constexpr std::int64_t line_floats = 16;  // of a cache line

// marks[place] |= bit << row where x[row][place] >= 0, for as many rows as are named and one vector of
// places.
template <typename Isa, int... row>
void mark_vector(const float* x, std::int64_t stride, std::uint32_t bit, std::uint32_t* marks,
                 std::integer_sequence<int, row...>) {
  auto marked = Isa::load_marks(marks);
  ((marked = Isa::mark(marked, x + row * stride, bit << row)), ...);
  Isa::store_marks(marks, marked);
}

// The same for `places` places, a line at least. The rows that come next are on their way to the cache
// meanwhile: where maps are large, each lies in memory pages of its own.
template <typename Isa, int... row>
void mark_rows(const float* x, std::int64_t stride, std::int64_t places, std::uint32_t bit,
               std::uint32_t* marks, std::integer_sequence<int, row...> rows) {
  const std::int64_t last = places - line_floats;
  for (std::int64_t next = 0; next < places; next += line_floats) {
    const std::int64_t place = next < last ? next : last;  // the last line overlaps
    (__builtin_prefetch(x + place + (static_cast<std::int64_t>(sizeof...(row)) + row) * stride), ...);
    for (std::int64_t i = place; i < place + line_floats; i += Isa::floats) {
      mark_vector<Isa>(x + i, stride, bit, marks + i, rows);
    }
  }
}

constexpr std::int64_t block_places = 1024;

// At most 64 channels at no more places than a block has.
template <typename Isa>
void pack_block(const float* x, std::int64_t channels, std::int64_t stride, std::int64_t places,
                Word* planes) {
  constexpr int together = 4;  // rows
  alignas(64) std::uint32_t marks[2][block_places];
  for (std::int64_t place = 0; place < places; ++place) marks[0][place] = marks[1][place] = 0;
  std::int64_t channel = 0;
  for (; channel + together <= channels; channel += together) {
    mark_rows<Isa>(x + channel * stride, stride, places, 1U << channel % 32, marks[channel / 32],
                   std::make_integer_sequence<int, together>());
  }
  for (; channel < channels; ++channel) {
    mark_rows<Isa>(x + channel * stride, stride, places, 1U << channel % 32, marks[channel / 32],
                   std::make_integer_sequence<int, 1>());
  }
  for (std::int64_t next = 0; next < places; next += Isa::floats) {
    const std::int64_t last = places - Isa::floats, place = next < last ? next : last;
    Isa::join(planes + place, Isa::load_marks(marks[0] + place), Isa::load_marks(marks[1] + place));
  }
}

template <typename Isa>
void pack_group(const float* x, std::int64_t channels, std::int64_t places, Word* planes) {
  const std::int64_t last = places - line_floats;
  for (std::int64_t next = 0; next < places; next += block_places) {
    const std::int64_t first = next < last ? next : last, rest = places - first;
    pack_block<Isa>(x + first, channels, places, rest < block_places ? rest : block_places, planes + first);
  }
}

template <typename Isa>
void pack_planes(const float* x, std::int64_t channels, std::int64_t places, Word* planes) {
  for (; channels > 0; channels -= word_bits) {
    const std::int64_t count = channels < word_bits ? channels : word_bits;
    if (places < line_floats) {
      for (std::int64_t place = 0; place < places; ++place)
        planes[place] = pack_word<Isa>(x + place, places, count);
    } else {
      pack_group<Isa>(x, count, places, planes);
    }
    x += count * places;
    planes += places;
  }
}

}  // namespace equibit
