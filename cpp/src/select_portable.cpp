// Selection in plain loops.

#include "select_portable.h"

#include "select.h"
#include "select_levels.h"

namespace equibit {

namespace {

struct Portable {
  template <bool magnitude, typename Value, typename Key>
  static Split split(const Value* values, std::int64_t n, Key low, Key high, Value* inside) {
    return split_plain<Portable, magnitude>(values, n, low, high, inside);
  }
};

}  // namespace

void select_f32_portable(const Selection& selection, const float* values, const float* levels, float* scratch,
                         float* out) {
  select_rows<Portable>(selection, values, levels, scratch, out);
}

void select_f64_portable(const Selection& selection, const double* values, const double* levels,
                         double* scratch, double* out) {
  select_rows<Portable>(selection, values, levels, scratch, out);
}

float value_at_f32_portable(const float* values, std::int64_t n, std::int64_t rank, bool magnitude,
                            float* scratch) {
  return value_at<Portable>(values, n, rank, magnitude, scratch);
}

double value_at_f64_portable(const double* values, std::int64_t n, std::int64_t rank, bool magnitude,
                             double* scratch) {
  return value_at<Portable>(values, n, rank, magnitude, scratch);
}

}  // namespace equibit
