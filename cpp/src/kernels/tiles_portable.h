// The plain tile kernels; every level starts from this table.
#pragma once

#include "equibit/tiles.h"

namespace equibit {

TileKernels portable_tiles();

}  // namespace equibit
