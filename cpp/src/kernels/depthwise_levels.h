// The depthwise kernels of each instruction set.
#pragma once

#include "equibit/tiles.h"

namespace equibit {

void fill_depthwise_portable(TileKernels& tiles);
void fill_depthwise_neon(TileKernels& tiles);
void fill_depthwise_avx2(TileKernels& tiles);
void fill_depthwise_avx512(TileKernels& tiles);

}  // namespace equibit
