// Where the sums of a layer go.
#pragma once

#include "plan.h"

namespace equibit {

// Some filters at neighbouring output places of an image.
struct Stretch {
  std::int64_t image;
  std::int64_t filter, filters;
  std::int64_t place, places;  // at most most_lanes
  std::int64_t size;           // places of the image
};

// Rows of sums, of the stretch's first filter and first place on: int32 where the plan counts integers, else
// floats.
struct Sums {
  const std::uint8_t* first;
  std::int64_t stride;  // sums from one row to the next
  const float* totals;  // of the places; read where the layer has an offset
};

// Brings sums to the outputs by the layer's epilogue, or to its words of signs. `counts`: those of the plan,
// with the corrections of the places.
void write_outputs(const Plan& plan, const Arrays& arrays, const Stretch& stretch, const Counts& counts,
                   const Sums& sums);

}  // namespace equibit
