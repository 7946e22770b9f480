#include "equibit/dispatch.h"

#include <cstring>

namespace equibit {

// A level gets its kernels, and a question to the CPU, with the file that implements it.
const std::array<Level, 6> levels = {{
    {"avx512_icl", nullptr},
    {"avx512_vnni", nullptr},
    {"avx512", nullptr},
    {"avx2", nullptr},
    {"neon", nullptr},
    {"portable", &portable_kernels},
}};

const Level* find_level(const char* name) {
  for (const Level& level : levels) {
    if (std::strcmp(level.name, name) == 0) return &level;
  }
  return nullptr;
}

const Level& best_level() {
  const Level* level = levels.data();
  while (level->kernels == nullptr) ++level;
  return *level;
}

}  // namespace equibit
