#include "equibit/choice.h"

#include <cstdlib>

namespace equibit {

namespace {

std::string describe(const std::string& name, const Level* level) {
  std::string message = std::string(level_variable) + "=" + name;
  message +=
      level == nullptr ? " is not a kernel level" : " is a kernel level that this CPU or this build lacks";
  message += ". Available here:";
  for (const Level& other : levels) {
    if (runs_here(other)) message += std::string(" ") + other.name;
  }
  return message + ".";
}

}  // namespace

Choice choose_level() {
  const char* name = std::getenv(level_variable);
  if (name == nullptr || *name == '\0') return {&best_level(), false, ""};
  const Level* level = find_level(name);
  if (level != nullptr && runs_here(*level)) return {level, true, ""};
  return {nullptr, true, describe(name, level)};
}

}  // namespace equibit
