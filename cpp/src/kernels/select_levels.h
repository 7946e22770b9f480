// The kernels of select.h of each instruction set.
#pragma once

#include "equibit/kernels.h"

namespace equibit {

void fill_select_portable(Kernels& kernels);
void fill_select_avx2(Kernels& kernels);
void fill_select_avx512(Kernels& kernels);

}  // namespace equibit
