// Average pooling, which networks for binary activations have in their shortcuts: the runtime's own takes
// longer there than a binary convolution of the same map.
#pragma once

#include <string>

#include "ort_api.h"

namespace equibit::ort {

// The operator `AveragePool` of our domain: X (batch, channels, places...), no padding; places that a window
// lacks at the end (`ceil_mode`) are not counted.
struct PoolOperator : CustomOp {
  explicit PoolOperator(int session_threads);

  int threads;
};

}  // namespace equibit::ort
