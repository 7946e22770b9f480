// The kernels for a single row of inputs of each instruction set.
#pragma once

#include "equibit/tiles.h"

namespace equibit {

void fill_gemv_avx2(TileKernels& tiles);
void fill_gemv_avx512(TileKernels& tiles);
void fill_gemv_neon(TileKernels& tiles);

}  // namespace equibit
