// The level whose kernels this process runs.
#pragma once

#include <string>
#include <vector>

#include "equibit/dispatch.h"

namespace equibit {

// The levels that run here, best first.
std::vector<std::string> available_levels();

// The level in use, chosen at first use. Where a forced one cannot run it raises, and the next use asks
// again.
const Level& active_level();
const Kernels& active_kernels();

// Whether layers should run on these kernels: plain loops do only where they are asked for.
bool runs_fast();

}  // namespace equibit
