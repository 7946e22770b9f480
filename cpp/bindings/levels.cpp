#include "levels.h"

#include <utility>

#include "equibit/choice.h"
#include "errors.h"

namespace equibit {

std::vector<std::string> available_levels() {
  std::vector<std::string> names;
  for (const Level& level : levels) {
    if (runs_here(level)) names.emplace_back(level.name);
  }
  return names;
}

namespace {

// The choice, made at first use.
const Choice& choice() {
  static Choice chosen{nullptr, false, ""};  // guarded by the GIL
  if (chosen.level == nullptr) {
    Choice now = choose_level();
    if (now.level == nullptr) raise_input_error(now.problem);
    chosen = std::move(now);
  }
  return chosen;
}

}  // namespace

const Level& active_level() { return *choice().level; }

bool runs_fast() { return choice().forced || choice().level->fill != fill_portable; }

const Kernels& active_kernels() { return kernels_of(active_level()); }

}  // namespace equibit
