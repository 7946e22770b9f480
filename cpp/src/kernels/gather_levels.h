// The gathers of each instruction set.
#pragma once

#include "equibit/tiles.h"

namespace equibit {

void fill_gather_portable(TileKernels& tiles);
void fill_gather_neon(TileKernels& tiles);
void fill_gather_avx2(TileKernels& tiles);
void fill_gather_avx512(TileKernels& tiles);

}  // namespace equibit
