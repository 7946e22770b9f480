// Counts of differing bits (1W1A), around the vectors of an instruction set.
//
// They are counted in running XORs. Let d_1 ... d_n be the words x XOR w of one output, p_0 = 0 and p_k =
// p_(k-1) ^ d_k. A bit is set in d_k where it changes from p_(k-1) to p_k. From 0 on, its changes are twice
// its descents, from 1 to 0, plus its last value, and of two changes in a row one at most is a descent:
//
//   popcount(d_1) + ... + popcount(d_n) = 2 (popcount(c_2) + popcount(c_4) + ... + popcount(c_n)) +
//   popcount(p_n), c_k = (p_(k-2) & ~p_(k-1)) | (p_(k-1) & ~p_k)
//
// p_k is the XOR of two words that were folded before, x_1 ^ ... ^ x_k and w_1 ^ ... ^ w_k, and c_k one
// operation where there are any of three operands. So two words take 5 operations, not the 6 of XOR, popcount
// and addition, and only one popcount, which matters most where there is no instruction for it.
#pragma once

#include <utility>

#include "equibit/kernels.h"
#include "pack_signs.h"

namespace equibit {

// The bits set in a sequence of vectors of which the running XORs are shown.
//
// `Isa` provides `Vector` of `lanes` words, its operations, and `Counter`, which adds up the bits of each
// word: of one vector or of two at once. It is flushed after every `most_chunks` calls; 4 more do no harm.
template <typename Isa>
struct Tally {
  using Vector = typename Isa::Vector;

  Vector parity;
  Vector held;
  typename Isa::Counter descents;

  void clear() {
    parity = Isa::zero();
    descents.clear();
  }

  // Two steps of the sequence.
  void take(Vector middle, Vector last) {
    descents.add(Isa::descents(parity, middle, last));
    parity = last;
  }

  // Four steps, in two calls.
  void take_half(Vector middle, Vector last) {
    held = Isa::descents(parity, middle, last);
    parity = last;
  }
  void take_other_half(Vector middle, Vector last) {
    descents.add(held, Isa::descents(parity, middle, last));
    parity = last;
  }

  Vector total() const { return descents.total(parity); }
};

template <typename Isa>
void fold_words(Word* panel, std::int64_t rows, std::int64_t lanes) {
  for (std::int64_t lane = 0; lane < lanes; lane += Isa::lanes) {
    auto parity = Isa::zero();
    for (Word* place = panel + lane; place < panel + rows * lanes; place += lanes) {
      parity = Isa::differ(parity, Isa::load(place));
      Isa::store(place, parity);
    }
  }
}

// Words are written behind the rows that are still to be read.
template <typename Isa>
void fold_few_bits(Word* panel, std::int64_t rows, std::int64_t lanes, std::int64_t together,
                   std::int64_t bits) {
  for (std::int64_t lane = 0; lane < lanes; lane += Isa::lanes) {
    const Word* from = panel + lane;
    Word* to = panel + lane;
    auto parity = Isa::zero();
    for (std::int64_t left = rows; left > 0; left -= together) {
      const std::int64_t count = left < together ? left : together;
      for (std::int64_t i = 0; i < count; ++i, from += lanes) {
        parity = Isa::differ(parity, Isa::shift(Isa::load(from), i * bits));
      }
      Isa::store(to, parity);
      to += lanes;
    }
  }
}

// Words that are read at once: two for each of the two vectors that a counter adds together.
constexpr std::int64_t chunk_words = 4;

template <typename Isa>
constexpr std::int64_t most_chunks = Isa::Counter::most_chunks;

// The sums of `filters` filters of a block at `vectors` vectors of lanes, kept in registers.
template <typename Isa, int vectors, int filters>
class RegisterTile {
 public:
  // `panel` points at the first lane, `weights` at the first filter, `out` at the sum of both.
  [[gnu::always_inline]] static void count(const Word* panel, std::int64_t words, std::int64_t lanes,
                                           const Word* weights, std::int32_t* out) {
    RegisterTile tile(panel, lanes, weights);
    tile.each([](Tally<Isa>& tally, int, int) { tally.clear(); });
    if (words % 2 == 1) tile.take_first();
    if (words % chunk_words >= 2) tile.take_pair();
    for (std::int64_t chunks = words / chunk_words; chunks > 0;) {
      std::int64_t run = chunks < most_chunks<Isa> ? chunks : most_chunks<Isa>;
      chunks -= run;
      for (; run > 0; --run) tile.take_chunk();
      if (chunks > 0) tile.each([](Tally<Isa>& tally, int, int) { tally.descents.flush(); });
    }
    tile.write(out);
  }

 private:
  using Vector = typename Isa::Vector;

  RegisterTile(const Word* panel, std::int64_t lanes, const Word* weights)
      : panel_(panel), lanes_(lanes), weights_(weights) {}

  // Calls body(tally, vector, filter), filter by filter. Unrolled here: the tallies are to stay in registers.
  template <typename Body, int... i>
  void each(const Body& body, std::integer_sequence<int, i...>) {
    (body(tallies_[i], i % vectors, i / vectors), ...);
  }

  template <typename Body>
  void each(const Body& body) {
    each(body, std::make_integer_sequence<int, filters * vectors>());
  }

  Vector parity(std::int64_t word, int vector, int filter) const {
    const Vector x = Isa::load(panel_ + word * lanes_ + vector * Isa::lanes);
    return Isa::differ(x, Isa::broadcast(weights_ + word * filter_block + filter));
  }

  void skip(std::int64_t words) {
    panel_ += words * lanes_;
    weights_ += words * filter_block;
  }

  void take_first() {
    each([this](Tally<Isa>& tally, int vector, int filter) { tally.parity = parity(0, vector, filter); });
    skip(1);
  }

  void take_pair() {
    each([this](Tally<Isa>& tally, int vector, int filter) {
      tally.take(parity(0, vector, filter), parity(1, vector, filter));
    });
    skip(2);
  }

  void take_chunk() {
    each([this](Tally<Isa>& tally, int vector, int filter) {
      tally.take_half(parity(0, vector, filter), parity(1, vector, filter));
    });
    each([this](Tally<Isa>& tally, int vector, int filter) {
      tally.take_other_half(parity(2, vector, filter), parity(3, vector, filter));
    });
    skip(chunk_words);
  }

  void write(std::int32_t* out) {
    each([this, out](Tally<Isa>& tally, int vector, int filter) {
      Isa::store(out + filter * lanes_ + vector * Isa::lanes, tally.total());
    });
  }

  const Word* panel_;
  std::int64_t lanes_;
  const Word* weights_;
  Tally<Isa> tallies_[filters * vectors];
};

template <typename Isa>
void xnor_tile(const Word* panel, std::int64_t words, std::int64_t lanes, const Word* filters,
               std::int64_t blocks, std::int32_t* out) {
  constexpr std::int64_t step = Isa::tile_vectors * Isa::lanes;
  for (std::int64_t block = 0; block < blocks; ++block) {
    for (int filter = 0; filter < filter_block; filter += Isa::tile_filters) {
      std::int64_t lane = 0;
      for (; lane + step <= lanes; lane += step) {
        RegisterTile<Isa, Isa::tile_vectors, Isa::tile_filters>::count(
            panel + lane, words, lanes, filters + filter, out + filter * lanes + lane);
      }
      if (step > 8 && lane < lanes) {  // the last eight
        RegisterTile<Isa, 8 / Isa::lanes, Isa::tile_filters>::count(
            panel + lane, words, lanes, filters + filter, out + filter * lanes + lane);
      }
    }
    filters += words * filter_block;
    out += filter_block * lanes;
  }
}

// The bits in which two rows differ.
template <typename Isa>
class RowTally {
 public:
  static std::int32_t count(const Word* x, const Word* row, std::int64_t words) {
    RowTally both(x, row);
    both.tally_.clear();
    for (std::int64_t chunks = words / (chunk_words * Isa::lanes); chunks > 0;) {
      std::int64_t run = chunks < most_chunks<Isa> ? chunks : most_chunks<Isa>;
      chunks -= run;
      for (; run > 0; --run) both.take_chunk();
      if (chunks > 0) both.tally_.descents.flush();
    }
    for (std::int64_t i = words / Isa::lanes % chunk_words; i > 0; --i) {
      both.take(Isa::load(both.x_), Isa::load(both.row_));
    }
    const std::int64_t rest = words % Isa::lanes;
    if (rest > 0) both.take(Isa::load_part(both.x_, rest), Isa::load_part(both.row_, rest));
    return static_cast<std::int32_t>(Isa::sum(both.tally_.total()));
  }

 private:
  using Vector = typename Isa::Vector;

  RowTally(const Word* x, const Word* row) : x_(x), row_(row) {}

  void skip() {
    x_ += Isa::lanes;
    row_ += Isa::lanes;
  }

  Vector after(Vector parity) {
    const Vector next = Isa::differ(parity, Isa::differ(Isa::load(x_), Isa::load(row_)));
    skip();
    return next;
  }

  void take_chunk() {
    Vector middle = after(tally_.parity);
    tally_.take_half(middle, after(middle));
    middle = after(tally_.parity);
    tally_.take_other_half(middle, after(middle));
  }

  // A step without another is followed by one that changes nothing.
  void take(Vector x, Vector row) {
    const Vector parity = Isa::differ(tally_.parity, Isa::differ(x, row));
    tally_.take(parity, parity);
    skip();
  }

  const Word* x_;
  const Word* row_;
  Tally<Isa> tally_;
};

template <typename Isa>
void gemv_xnor(const Word* x, std::int64_t words, const Word* rows, std::int64_t count, std::int32_t* y) {
  for (std::int64_t row = 0; row < count; ++row) y[row] = RowTally<Isa>::count(x, rows + row * words, words);
}

template <typename Isa>
void fill_xnor(Kernels& kernels) {
  kernels.pack_f32 = pack_rows<Isa>;
  kernels.tiles.fold_words = fold_words<Isa>;
  kernels.tiles.fold_few_bits = fold_few_bits<Isa>;
  kernels.tiles.xnor_tile = xnor_tile<Isa>;
  kernels.tiles.gemv_xnor = gemv_xnor<Isa>;
  kernels.tiles.pack_planes = pack_planes<Isa>;
}

}  // namespace equibit
