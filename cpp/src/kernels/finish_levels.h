// The kernels of finish.h of each instruction set.
#pragma once

#include "equibit/tiles.h"

namespace equibit {

void fill_finish_portable(TileKernels& tiles);
void fill_finish_neon(TileKernels& tiles);
void fill_finish_avx2(TileKernels& tiles);
void fill_finish_avx512(TileKernels& tiles);

}  // namespace equibit
