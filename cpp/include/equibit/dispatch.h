// The levels there are, and which of them this build has.
#pragma once

#include <array>
#include <cstddef>

#include "equibit/kernels.h"

namespace equibit {

// The environment variable that forces a level by name.
constexpr const char* level_variable = "EQUIBIT_KERNEL";

// One instruction set; `fill` is null where this build does not contain it.
struct Level {
  const char* name;
  void (*fill)(Kernels& kernels);  // puts the level's kernels over those of the levels below it
  bool (*on_this_cpu)();           // whether the CPU and the system have what the level needs
};

constexpr std::size_t levels_count = 6;

// Every level that has a name, best first.
extern const std::array<Level, levels_count> levels;

// The level of that name, or null where there is none.
const Level* find_level(const char* name);

// Whether this build contains the level and this CPU runs it.
bool runs_here(const Level& level);

// The best level that runs here; `portable` runs everywhere.
const Level& best_level();

// The kernels of a level that this build contains; it inherits those that it has none of its own for.
const Kernels& kernels_of(const Level& level);

}  // namespace equibit
