// The selection's step in plain loops.
#pragma once

#include "select.h"

namespace equibit {

// `Isa` keeps the function local to its source file.
template <typename Isa, bool magnitude, typename Value>
Split split_plain(const Value* values, std::int64_t n, typename KeyOfValue<Value>::Key low,
                  typename KeyOfValue<Value>::Key high, Value* inside) {
  Split split{0, 0};
  for (std::int64_t i = 0; i < n; ++i) {
    const auto key = select_key<Isa, magnitude>(values[i]);
    split.below += key < low;
    inside[split.inside] = values[i];
    split.inside += low <= key && key <= high;
  }
  return split;
}

}  // namespace equibit
