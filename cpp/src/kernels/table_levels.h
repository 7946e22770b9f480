// The table kernels of each instruction set.
#pragma once

#include "equibit/tiles.h"

namespace equibit {

void fill_table_avx2(TileKernels& tiles);
void fill_table_avx512(TileKernels& tiles);
void fill_table_neon(TileKernels& tiles);

}  // namespace equibit
