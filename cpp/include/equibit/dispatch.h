// The levels there are, and which of them this build has.
#pragma once

#include <array>

#include "equibit/kernels.h"

namespace equibit {

// The environment variable that forces a level by name.
constexpr const char* level_variable = "EQUIBIT_KERNEL";

// One instruction set; `kernels` is null where this build does not contain it.
struct Level {
  const char* name;
  const Kernels* kernels;
  bool (*on_this_cpu)();  // whether the CPU and the system have what the level needs
};

// Every level that has a name, best first.
extern const std::array<Level, 6> levels;

// The level of that name, or null where there is none.
const Level* find_level(const char* name);

// Whether this build contains the level and this CPU runs it.
bool runs_here(const Level& level);

// The best level that runs here; `portable` runs everywhere.
const Level& best_level();

}  // namespace equibit
