#include "equibit/dispatch.h"

#include <cstring>

#include "select_levels.h"

namespace equibit {

namespace {

// A level's table is filled here, in code for the lowest CPU, with the portable kernels where the level has
// none of its own.
#ifdef EQUIBIT_X86_LEVELS
Kernels selecting(decltype(Kernels::select_f32) select_f32, decltype(Kernels::select_f64) select_f64) {
  Kernels kernels = portable_kernels;
  kernels.select_f32 = select_f32;
  kernels.select_f64 = select_f64;
  return kernels;
}

const Kernels avx2_table = selecting(select_f32_avx2, select_f64_avx2);
const Kernels avx512_table = selecting(select_f32_avx512, select_f64_avx512);
const Kernels* const avx2_kernels = &avx2_table;
const Kernels* const avx512_kernels = &avx512_table;

// What the compiler's library knows of the CPU includes whether the system saves the wide registers.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#else
const Kernels* const avx2_kernels = nullptr;
const Kernels* const avx512_kernels = nullptr;

bool has_avx2() { return false; }
bool has_avx512() { return false; }
#endif

bool has_nothing() { return false; }
bool has_everything() { return true; }

}  // namespace

const std::array<Level, 6> levels = {{
    {"avx512_icl", nullptr, has_nothing},
    {"avx512_vnni", nullptr, has_nothing},
    {"avx512", avx512_kernels, has_avx512},
    {"avx2", avx2_kernels, has_avx2},
    {"neon", nullptr, has_nothing},
    {"portable", &portable_kernels, has_everything},
}};

const Level* find_level(const char* name) {
  for (const Level& level : levels) {
    if (std::strcmp(level.name, name) == 0) return &level;
  }
  return nullptr;
}

bool runs_here(const Level& level) { return level.kernels != nullptr && level.on_this_cpu(); }

const Level& best_level() {
  const Level* level = levels.data();
  while (!runs_here(*level)) ++level;
  return *level;
}

}  // namespace equibit
