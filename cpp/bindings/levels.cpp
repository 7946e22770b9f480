#include "levels.h"

#include <cstdlib>

#include "errors.h"

namespace equibit {

namespace {

const Level& forced_level(const std::string& name) {
  const Level* level = find_level(name.c_str());
  if (level != nullptr && runs_here(*level)) return *level;
  std::string message = std::string(level_variable) + "=" + name;
  message +=
      level == nullptr ? " is not a kernel level" : " is a kernel level that this CPU or this build lacks";
  message += ". Available here:";
  for (const std::string& available : available_levels()) message += " " + available;
  raise_input_error(message + ".");
}

}  // namespace

std::vector<std::string> available_levels() {
  std::vector<std::string> names;
  for (const Level& level : levels) {
    if (runs_here(level)) names.emplace_back(level.name);
  }
  return names;
}

const Level& active_level() {
  static const Level* chosen = nullptr;  // guarded by the GIL
  if (chosen == nullptr) {
    const char* forced = std::getenv(level_variable);
    chosen = forced == nullptr || *forced == '\0' ? &best_level() : &forced_level(forced);
  }
  return *chosen;
}

}  // namespace equibit
