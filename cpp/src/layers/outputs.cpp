#include "outputs.h"

namespace equibit {

void write_outputs(const Plan& plan, const Arrays& arrays, const Stretch& stretch, const Counts& counts,
                   const Sums& sums) {
  const TileKernels& tiles = plan.tiles();
  const std::int64_t filters = plan.geometry().filters;
  const auto* integers = reinterpret_cast<const std::int32_t*>(sums.first);
  const bool row = stretch.size == 1 && counts.correction == nullptr;
  if (plan.gives_words()) {
    const std::int64_t word = stretch.image * words_for(filters) + stretch.filter / word_bits;
    const Signs signs{stretch.filters,
                      stretch.places,
                      sums.stride,
                      plan.bounds_from(stretch.filter),
                      plan.flips_from(stretch.filter),
                      arrays.words() + word * stretch.size + stretch.place,
                      stretch.size};
    return (row && sums.stride == 1 ? tiles.sign_row_i32 : tiles.sign_i32)(signs, counts, integers);
  }
  const std::int64_t at = (stretch.image * filters + stretch.filter) * stretch.size + stretch.place;
  const Results results{stretch.filters,
                        stretch.places,
                        sums.stride,
                        sums.totals,
                        arrays.residual == nullptr ? nullptr : arrays.residual + at,
                        stretch.size,
                        arrays.y + at,
                        stretch.size};
  const Epilogue epilogue = plan.epilogue_from(stretch.filter);
  if (plan.counts_integers()) {
    return (row ? tiles.finish_row_i32 : tiles.finish_i32)(epilogue, results, counts, integers);
  }
  (row ? tiles.finish_row_f32 : tiles.finish_f32)(epilogue, results, counts,
                                                  reinterpret_cast<const float*>(sums.first));
}

}  // namespace equibit
