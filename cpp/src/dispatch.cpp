#include "equibit/dispatch.h"

#include <cstring>

#include "kernels/depthwise_levels.h"
#include "kernels/finish_levels.h"
#include "kernels/gather_levels.h"
#include "kernels/gemv_levels.h"
#include "kernels/select_levels.h"
#include "kernels/table_levels.h"
#include "kernels/vnni_levels.h"
#include "kernels/xnor_levels.h"

namespace equibit {

namespace {

// Each level's kernels are put together here, in code for the lowest CPU: those of the level below, then its
// own.
#ifdef EQUIBIT_X86_LEVELS
void fill_avx2(Kernels& kernels) {
  fill_portable(kernels);
  fill_depthwise_avx2(kernels.tiles);
  fill_finish_avx2(kernels.tiles);
  fill_gather_avx2(kernels.tiles);
  fill_select_avx2(kernels);
  fill_table_avx2(kernels.tiles);
  fill_xnor_avx2(kernels);
  fill_gemv_avx2(kernels.tiles);
}

void fill_avx512(Kernels& kernels) {
  fill_avx2(kernels);
  fill_depthwise_avx512(kernels.tiles);
  fill_finish_avx512(kernels.tiles);
  fill_gather_avx512(kernels.tiles);
  fill_select_avx512(kernels);
  fill_table_avx512(kernels.tiles);
  fill_xnor_avx512(kernels);
  fill_gemv_avx512(kernels.tiles);
}

void fill_avx512_vnni(Kernels& kernels) {
  fill_avx512(kernels);
  fill_vnni_avx512_vnni(kernels.tiles);
}

void fill_avx512_icl(Kernels& kernels) {
  fill_avx512_vnni(kernels);
  fill_xnor_avx512_icl(kernels);
}

// What the compiler's library knows of the CPU includes whether the system saves the wide registers.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

bool has_avx512_icl() {
  return has_avx512_vnni() && __builtin_cpu_supports("avx512vpopcntdq") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bitalg");
}
#else
constexpr auto fill_avx2 = nullptr, fill_avx512 = nullptr, fill_avx512_vnni = nullptr,
               fill_avx512_icl = nullptr;

bool has_avx2() { return false; }
bool has_avx512() { return false; }
bool has_avx512_vnni() { return false; }
bool has_avx512_icl() { return false; }
#endif

#ifdef EQUIBIT_NEON_LEVEL
void fill_neon(Kernels& kernels) {
  fill_portable(kernels);
  fill_depthwise_neon(kernels.tiles);
  fill_finish_neon(kernels.tiles);
  fill_gather_neon(kernels.tiles);
  fill_gemv_neon(kernels.tiles);
  fill_table_neon(kernels.tiles);
  fill_xnor_neon(kernels);
}

bool has_neon() { return true; }  // every 64-bit ARM has it
#else
constexpr auto fill_neon = nullptr;

bool has_neon() { return false; }
#endif

bool has_everything() { return true; }

// The table of each level that this build contains, in the order of `levels`.
std::array<Kernels, levels_count> fill_tables() {
  std::array<Kernels, levels_count> tables{};
  for (std::size_t i = 0; i < tables.size(); ++i) {
    if (levels[i].fill != nullptr) levels[i].fill(tables[i]);
  }
  return tables;
}

}  // namespace

const std::array<Level, levels_count> levels = {{
    {"avx512_icl", fill_avx512_icl, has_avx512_icl},
    {"avx512_vnni", fill_avx512_vnni, has_avx512_vnni},
    {"avx512", fill_avx512, has_avx512},
    {"avx2", fill_avx2, has_avx2},
    {"neon", fill_neon, has_neon},
    {"portable", fill_portable, has_everything},
}};

const Level* find_level(const char* name) {
  for (const Level& level : levels) {
    if (std::strcmp(level.name, name) == 0) return &level;
  }
  return nullptr;
}

bool runs_here(const Level& level) { return level.fill != nullptr && level.on_this_cpu(); }

const Level& best_level() {
  const Level* level = levels.data();
  while (!runs_here(*level)) ++level;
  return *level;
}

const Kernels& kernels_of(const Level& level) {
  static const std::array<Kernels, levels_count> tables = fill_tables();
  return tables[static_cast<std::size_t>(&level - levels.data())];
}

}  // namespace equibit
