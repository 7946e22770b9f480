// Errors on both sides of the C interface: statuses outside, exceptions inside.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>

#include "ort_api.h"

namespace equibit::ort {

// A node or an input that cannot be computed with; the message is for people.
class Problem : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws what a function of the runtime reports.
inline void check(const Api* api, Status* status) {
  if (status == nullptr) return;
  const std::string message = get<GetErrorMessage>(api)(status);
  get<ReleaseStatus>(api)(status);
  throw Problem(message);
}

// Calls a function of the runtime that returns a status.
template <typename E, typename... Arguments>
void call(const Api* api, Arguments... arguments) {
  check(api, get<E>(api)(arguments...));
}

// Runs `body` with the name of a layer, which a Problem then names.
template <typename Body>
void named(const std::string& name, const Body& body) {
  try {
    body(name);
  } catch (const Problem& problem) {
    throw Problem("equibit: layer '" + name + "': " + problem.what());
  }
}

// Runs `body` and turns what it throws into a status: nothing may be thrown through the C interface.
template <typename Body>
Status* guarded(const Api* api, const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Problem& problem) {
    return get<CreateStatus>(api)(invalid_argument, problem.what());
  } catch (const std::exception& error) {
    return get<CreateStatus>(api)(fail, error.what());
  }
}

}  // namespace equibit::ort
