// Selection in plain loops.

#include "select_portable.h"

#include "select.h"
#include "select_levels.h"

namespace equibit {

namespace {

struct Portable {
  template <bool magnitude, typename Value, typename Key>
  static Split split(const Value* values, std::int64_t n, Key low, Key high, Value* inside) {
    return split_plain<Portable, magnitude>(values, n, low, high, inside);
  }
};

}  // namespace

void fill_select_portable(Kernels& kernels) { fill_select<Portable>(kernels); }

}  // namespace equibit
