// Exact selection by rank, in linear time and without sorting: the algorithm, around the one step that an
// instruction set speeds up.
//
// Values are compared by integer keys: a float's sign and magnitude as a two's complement number. Keys order
// as the values do, -0.0 has the key of 0.0, denormals stay distinct whatever the processor flushes to zero,
// and NaN has a place beyond the infinities, so that every input has an answer.
//
// The value of a given rank is found by narrowing (Floyd and Rivest, "Expected time bounds for selection",
// Communications of the ACM 18, 1975, with the rows before in the place of their sample). Where the rows
// before had it, or for the first the mean, gives a bracket that holds it and about 2 sqrt(n) others. One
// pass counts the values below the bracket and collects those inside; interpolation narrows the collected
// ones further, until a few are left. A bracket that misses costs time, never exactness: the counts tell.
#pragma once

#include <math.h>

#include <cstdint>
#include <cstring>

#include "equibit/kernels.h"

namespace equibit {

// How many values lie below a bracket, and how many inside.
struct Split {
  std::int64_t below;
  std::int64_t inside;
};

template <typename Value>
struct KeyOfValue;
template <>
struct KeyOfValue<float> {
  using Key = std::int32_t;
  using Unsigned = std::uint32_t;
};
template <>
struct KeyOfValue<double> {
  using Key = std::int64_t;
  using Unsigned = std::uint64_t;
};

// The key that a value, or its magnitude, is ordered by.
template <typename Isa, bool magnitude, typename Value>
typename KeyOfValue<Value>::Key select_key(Value value) {
  using Key = typename KeyOfValue<Value>::Key;
  constexpr int sign_place = 8 * sizeof(Key) - 1;
  Key bits;
  std::memcpy(&bits, &value, sizeof bits);
  const Key size = bits & static_cast<Key>(~(typename KeyOfValue<Value>::Unsigned{1} << sign_place));
  if (magnitude) return size;
  const Key sign = bits >> sign_place;  // 0 or -1
  return (size ^ sign) - sign;
}

// `Isa` provides
//   split<magnitude>(values, n, low, high, inside), which counts the values whose key is below `low`, and
//   copies those whose key lies in [low, high], in order, and may write up to select_padding places more.
// It is a type of its source file's unnamed namespace, and so every function here is local to that file: none
// that was compiled with the flags of an instruction set can stand in for another's. For the same reason no
// function of the C++ library is called.
template <typename Isa, typename Value, bool magnitude>
class RowSelector {
 public:
  RowSelector(const Selection& selection, const Value* levels, Value* scratch)
      : selection_(selection),
        counts_{selection.low, selection.low + selection.middle},
        levels_(levels),
        scratch_{scratch, scratch + selection.n + select_padding} {}

  // Writes one row. Rows that resemble those before are the fastest.
  void select(const Value* values, Value* out) {
    find_cuts(values);
    write(values, out);
    for (int i = 0; i < 2; ++i) {
      const bool done = i == 1 && cuts_[1].key == cuts_[0].key;
      if (cuts_[i].within > counts_[i] && !done) resolve_ties(values, cuts_[i], out);
    }
  }

  // The value, or magnitude, at `rank` of a row that none came before: a sample of it says where to look.
  Value at(const Value* values, std::int64_t rank) {
    const std::int64_t n = selection_.n;
    if (n <= sample_size) return value_of(narrow(values, n, rank, 0).key);
    const std::int64_t nearest = rank * sample_size / n;
    const auto margin = static_cast<std::int64_t>(3 * rank_deviation(nearest, sample_size));
    const Value first = sampled(values, nearest - margin), last = sampled(values, nearest + margin + 1);
    return value_of(bracket(values, rank, first / 2 + last / 2, last / 2 - first / 2).key);
  }

 private:
  using Key = typename KeyOfValue<Value>::Key;
  using UnsignedKey = typename KeyOfValue<Value>::Unsigned;

  static constexpr Key highest_key = static_cast<Key>(~UnsignedKey{0} >> 1);
  static constexpr Key lowest_key = -highest_key - 1;  // below the key of every value
  static constexpr std::int64_t few = 16;              // candidates that are compared all with all
  static constexpr std::int64_t short_row = 128;       // all of it are candidates
  static constexpr std::int64_t sample_size = 4096;    // evenly spread over a long row
  static constexpr int tries = 4;           // brackets before all that can hold the threshold are candidates
  static constexpr int interpolations = 6;  // rounds before the range of keys is halved instead
  static constexpr Value errors = Value(2.5);  // half a bracket, in mean errors of the guess

  // A key, and the ranks of its equals: less .. within - 1.
  struct Cut {
    Key key;
    std::int64_t less;
    std::int64_t within;
  };

  // Where the rows before had their cut: at `middle`, give or take `error` on average. The error is 0 before
  // the first row, and never falls below `least`.
  struct Guess {
    Value middle = 0;
    Value error = 0;
    Value least = 0;
  };

  static Key key_of(Value value) { return select_key<Isa, magnitude>(value); }

  static Value value_of(Key key) {
    const Key bits = key < 0 ? static_cast<Key>(-key | lowest_key) : key;
    Value value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

  // The key of `value`, at least `low` and at most `high` whatever `value` is.
  static Key key_between(Value value, Key low, Key high) {
    if (magnitude && value < 0) return low;
    const Key key = key_of(value);
    return key < low ? low : key > high ? high : key;
  }

  static Split split(const Value* values, std::int64_t n, Key low, Key high, Value* inside) {
    return Isa::template split<magnitude>(values, n, low, high, inside);
  }

  // The standard deviation of the number of n random values that lie below one of that rank.
  static Value rank_deviation(std::int64_t rank, std::int64_t n) {
    const double share = (static_cast<double>(rank) + 0.5) / static_cast<double>(n);
    return static_cast<Value>(sqrt(share * (1 - share) * static_cast<double>(n)));
  }

  void find_cuts(const Value* values) {
    const std::int64_t n = selection_.n;
    for (int i = 0; i < 2; ++i) {
      if (counts_[i] == 0) {
        cuts_[i] = {lowest_key, 0, 0};
      } else if (counts_[i] == n) {
        cuts_[i] = {highest_key, 0, n};
      } else if (i == 1 && counts_[1] == counts_[0]) {
        cuts_[1] = cuts_[0];
      } else if (n <= short_row) {
        cuts_[i] = narrow(values, n, counts_[i] - 1, 0);
      } else {
        cuts_[i] = guided(values, counts_[i] - 1, guesses_[i]);
      }
    }
  }

  // A guess from the mean and the mean magnitude of a row, as if its middle were what is looked for.
  Guess first_guess(const Value* values, std::int64_t rank) const {
    Value sum = 0, size = 0;
#pragma omp simd reduction(+ : sum, size)
    for (std::int64_t i = 0; i < selection_.n; ++i) {
      sum += values[i];
      size += values[i] < 0 ? -values[i] : values[i];
    }
    const Value n = static_cast<Value>(selection_.n);
    const Value error = size / n * rank_deviation(rank, selection_.n) / n;
    return {(magnitude ? size : sum) / n, error, error / 16};
  }

  // The cut at `rank` of a whole row, and a better guess for the next one.
  Cut guided(const Value* values, std::int64_t rank, Guess& guess) {
    const bool first = !(guess.error > 0);
    if (first) guess = first_guess(values, rank);
    const Cut cut = bracket(values, rank, guess.middle, errors * guess.error);
    const Value off = value_of(cut.key) - guess.middle;
    guess.middle += first ? off : off / 4;
    if (!first) guess.error += ((off < 0 ? -off : off) - guess.error) / 8;
    if (guess.error < guess.least) guess.error = guess.least;
    const bool finite = guess.middle - guess.middle == 0 && guess.error - guess.error == 0;
    if (!finite) guess = {};
    return cut;
  }

  // The value at `rank`, or at the end nearest to it, of the sample.
  Value sampled(const Value* values, std::int64_t rank) {
    const std::int64_t stride = selection_.n / sample_size, last = sample_size - 1;
    for (std::int64_t i = 0; i < sample_size; ++i) scratch_[1][i] = values[i * stride];
    return value_of(narrow(scratch_[1], sample_size, rank < 0 ? 0 : rank > last ? last : rank, 0).key);
  }

  // The cut at `rank` of a whole row, which is probably in middle - half .. middle + half.
  Cut bracket(const Value* values, std::int64_t rank, Value middle, Value half) {
    Key low = lowest_key, high = highest_key;  // of the keys that can be the cut's
    for (int attempt = 0; attempt < tries; ++attempt) {
      const Key first = key_between(middle - half, low, high);
      const Key last = key_between(middle + half, first, high);
      const Split found = split(values, selection_.n, first, last, scratch_[0]);
      const std::int64_t ahead = rank - found.below;
      if (0 <= ahead && ahead < found.inside) return narrow(scratch_[0], found.inside, ahead, found.below);
      (ahead < 0 ? high : low) = ahead < 0 ? first - 1 : last + 1;
      // Newton's step on the count, whose slope the bracket's own share of the values gives.
      const Value slope = static_cast<Value>(found.inside + 1) / (2 * half);
      const Value step = (static_cast<Value>(ahead) - static_cast<Value>(found.inside) / 2) / slope;
      middle += step;
      half += (step < 0 ? -step : step) / 8;
    }
    const Split rest = split(values, selection_.n, low, high, scratch_[0]);
    return narrow(scratch_[0], rest.inside, rank - rest.below, rest.below);
  }

  // The cut at `rank` of n candidates, with `base` values of the row below them.
  Cut narrow(const Value* candidates, std::int64_t n, std::int64_t rank, std::int64_t base) {
    for (int round = 0; n > few; ++round) {
      Key low = highest_key, high = lowest_key;
      for (std::int64_t i = 0; i < n; ++i) {
        const Key key = key_of(candidates[i]);
        low = key < low ? key : low;
        high = key > high ? key : high;
      }
      if (low == high) return {low, base, base + n};
      Value* out = candidates == scratch_[0] ? scratch_[1] : scratch_[0];
      const Split kept = collect(candidates, n, rank, low, high, round < interpolations, out);
      candidates = out;
      base += kept.below;
      rank -= kept.below;
      n = kept.inside;
    }
    return compare_all(candidates, n, rank, base);
  }

  // Copies those candidates, of keys low .. high, among which the one at `rank` is.
  static Split collect(const Value* candidates, std::int64_t n, std::int64_t rank, Key low, Key high,
                       bool interpolate, Value* out) {
    Key first = low;
    Key last = low + static_cast<Key>((static_cast<UnsignedKey>(high) - static_cast<UnsignedKey>(low)) / 2);
    if (interpolate) {
      const Value begin = value_of(low), unit = (value_of(high) - begin) / static_cast<Value>(n);
      const Value middle = begin + unit * (static_cast<Value>(rank) + Value(0.5));
      const Value half = unit * rank_deviation(rank, n);
      first = key_between(middle - half, low, high);
      last = key_between(middle + half, first, high);
    }
    const Split found = split(candidates, n, first, last, out);
    if (rank < found.below) return split(candidates, n, low, first - 1, out);
    if (rank < found.below + found.inside) return found;
    return split(candidates, n, last + 1, high, out);
  }

  // The cut at `rank` of at most `few` candidates.
  static Cut compare_all(const Value* candidates, std::int64_t n, std::int64_t rank, std::int64_t base) {
    Key keys[few];
    for (std::int64_t i = 0; i < few; ++i) keys[i] = i < n ? key_of(candidates[i]) : highest_key;
    for (std::int64_t i = 0;; ++i) {
      Key less = 0, within = 0;
      for (std::int64_t j = 0; j < few; ++j) {
        less += keys[j] < keys[i];
        within += keys[j] <= keys[i];
      }
      if (less <= rank && rank < within) return {keys[i], base + less, base + (within < n ? within : n)};
    }
  }

  void write(const Value* values, Value* out) const {
    const Key low = cuts_[0].key, middle = cuts_[1].key;
    const Value lowest = levels_[0], between = levels_[1], highest = levels_[2];
    if (low == middle) {
      for (std::int64_t i = 0; i < selection_.n; ++i) out[i] = key_of(values[i]) <= low ? lowest : highest;
      return;
    }
    for (std::int64_t i = 0; i < selection_.n; ++i) {
      const Key key = key_of(values[i]);
      const Value upper = key <= middle ? between : highest;
      out[i] = key <= low ? lowest : upper;
    }
  }

  // Values that equal a cut's take its ranks in the order of their index.
  void resolve_ties(const Value* values, const Cut& cut, Value* out) const {
    const std::int64_t channels = selection_.n / selection_.taps;
    std::int64_t rank = cut.less;
    for (std::int64_t channel = 0; channel < channels; ++channel) {
      for (std::int64_t tap = 0; tap < selection_.taps; ++tap) {
        const std::int64_t place = tap * channels + channel;
        if (key_of(values[place]) != cut.key) continue;
        out[place] = levels_[rank < counts_[0] ? 0 : rank < counts_[1] ? 1 : 2];
        ++rank;
      }
    }
  }

  Selection selection_;
  std::int64_t counts_[2];  // values at level 0; at levels 0 and 1
  const Value* levels_;
  Value* scratch_[2];
  Guess guesses_[2];
  Cut cuts_[2];  // after the last value of level 0, and of level 1
};

// The kernel over an instruction set.
template <typename Isa, typename Value>
void select_rows(const Selection& selection, const Value* values, const Value* levels, Value* scratch,
                 Value* out) {
  const auto run = [&](auto selector) {
    for (std::int64_t row = 0; row < selection.rows; ++row) {
      selector.select(values + row * selection.n, out + row * selection.n);
    }
  };
  if (selection.magnitude) {
    run(RowSelector<Isa, Value, true>(selection, levels, scratch));
  } else {
    run(RowSelector<Isa, Value, false>(selection, levels, scratch));
  }
}

template <typename Isa, typename Value>
Value value_at(const Value* values, std::int64_t n, std::int64_t rank, bool magnitude, Value* scratch) {
  const Selection row{1, n, 1, 0, 0, magnitude};
  return magnitude ? RowSelector<Isa, Value, true>(row, nullptr, scratch).at(values, rank)
                   : RowSelector<Isa, Value, false>(row, nullptr, scratch).at(values, rank);
}

template <typename Isa>
void fill_select(Kernels& kernels) {
  kernels.select_f32 = select_rows<Isa, float>;
  kernels.select_f64 = select_rows<Isa, double>;
  kernels.value_at_f32 = value_at<Isa, float>;
  kernels.value_at_f64 = value_at<Isa, double>;
}

}  // namespace equibit
