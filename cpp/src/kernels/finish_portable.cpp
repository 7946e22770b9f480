// One place a step.

#include <cmath>

#include "finish.h"
#include "finish_levels.h"

namespace equibit {

namespace {

struct Portable {
  using Floats = float;
  using Ints = std::int32_t;
  using Tail = bool;
  static constexpr std::int64_t lanes = 1;

  static Tail first(std::int64_t count) { return count > 0; }
  static Floats load(const float* from, Tail tail) { return tail ? *from : 0; }
  static Ints load(const std::int32_t* from, Tail tail) { return tail ? *from : 0; }
  static void store(float* to, Floats value, Tail) { *to = value; }
  static Floats all(float value) { return value; }
  static Ints ints(std::int32_t value) { return value; }
  static Floats add(Floats a, Floats b) { return a + b; }
  static Ints add(Ints a, Ints b) { return a + b; }
  static Ints sub(Ints a, Ints b) { return a - b; }
  static Floats mul(Floats a, Floats b) { return a * b; }
  static Floats div(Floats a, Floats b) { return a / b; }
  static Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }
  static Floats below(Floats v, Floats bound, Floats other) { return v < bound ? other : v; }
  static Floats above(Floats v, Floats bound, Floats other) { return v > bound ? other : v; }
  static Floats not_below(Floats v, Floats bound, Floats yes, Floats no) { return v >= bound ? yes : no; }
  static Floats float_of(Ints value) { return static_cast<float>(value); }
  static Ints lookup(const std::int32_t* table, std::int64_t, Ints at, Tail) { return table[at]; }
  static Ints round(Floats v) { return v == v ? static_cast<Ints>(std::nearbyint(v)) : 0; }
  static void store_quads(std::int8_t* to, const Ints* quads, std::int64_t) {
    for (std::int64_t i = 0; i < 4; ++i) to[i] = static_cast<std::int8_t>(quads[i]);
  }
  static Ints mark(Ints marks, Ints value, Ints bound) {
    return static_cast<Ints>(2 * static_cast<std::uint32_t>(marks) + (value <= bound ? 1 : 0));
  }
  static std::uint32_t reached(Ints value, Ints bound, std::int64_t) { return value <= bound ? 1 : 0; }
  static void store_words(Word* to, Ints low, Ints high, Word flips, Tail) {
    *to = (Word{static_cast<std::uint32_t>(high)} << 32 | static_cast<std::uint32_t>(low)) ^ flips;
  }
};

}  // namespace

void fill_finish_portable(TileKernels& tiles) { fill_finish<Portable>(tiles); }

}  // namespace equibit
