// The VNNI kernels of each instruction set.
#pragma once

#include "equibit/tiles.h"

namespace equibit {

void fill_vnni_avx512_vnni(TileKernels& tiles);

}  // namespace equibit
