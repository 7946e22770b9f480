// Population counts without an instruction for them.
#pragma once

namespace equibit {

// The bits of vectors, per word, counted by bytes: a table of nibbles (Mula, "SSSE3: fast popcount", 2008)
// gives those of a byte. A carry-save adder joins vectors before, so that only every other one is counted
// (Harley and Seal's counter).
template <typename Isa>
class ByteCounter {
 public:
  using Vector = typename Isa::Vector;
  static constexpr int most_chunks = 255 / 8 - 4;  // a byte grows by 8 at most with each `add`

  void clear() { ones_ = bytes_ = sum_ = Isa::zero(); }

  void add(Vector bits) {
    count(Isa::both(ones_, bits));
    ones_ = Isa::differ(ones_, bits);
  }

  void add(Vector bits, Vector others) {
    count(Isa::majority(ones_, bits, others));
    ones_ = Isa::parity(ones_, bits, others);
  }

  void flush() {
    sum_ = Isa::add(sum_, Isa::sum_bytes(bytes_));
    bytes_ = Isa::zero();
  }

  // Twice the bits, and those of `rest`.
  Vector total(Vector rest) const {
    const Vector ones = Isa::count_bytes(ones_);
    const Vector bytes = Isa::add_bytes(Isa::add_bytes(ones, ones), Isa::count_bytes(rest));
    const Vector fours = Isa::add(sum_, Isa::sum_bytes(bytes_));
    return Isa::add(Isa::four_times(fours), Isa::sum_bytes(bytes));
  }

 private:
  void count(Vector twos) { bytes_ = Isa::add_bytes(bytes_, Isa::count_bytes(twos)); }

  Vector ones_;
  Vector bytes_;  // of weight two
  Vector sum_;
};

}  // namespace equibit
