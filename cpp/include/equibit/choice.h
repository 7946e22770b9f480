// The level to use.
#pragma once

#include <string>

#include "equibit/dispatch.h"

namespace equibit {

struct Choice {
  const Level* level;   // null where the one that is asked for does not run here
  bool forced;          // whether EQUIBIT_KERNEL names it; else it is the best one
  std::string problem;  // what is wrong, and which levels there are
};

// The level that EQUIBIT_KERNEL names, or the best one.
Choice choose_level();

}  // namespace equibit
