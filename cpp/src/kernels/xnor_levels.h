// The kernels of xnor.h of each instruction set.
#pragma once

#include "equibit/kernels.h"

namespace equibit {

void fill_xnor_avx2(Kernels& kernels);
void fill_xnor_avx512(Kernels& kernels);
void fill_xnor_avx512_icl(Kernels& kernels);
void fill_xnor_neon(Kernels& kernels);

}  // namespace equibit
