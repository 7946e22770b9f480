// The selection kernels of each instruction set.
#pragma once

#include "equibit/kernels.h"

namespace equibit {

void select_f32_portable(const Selection& selection, const float* values, const float* levels, float* scratch,
                         float* out);
void select_f64_portable(const Selection& selection, const double* values, const double* levels,
                         double* scratch, double* out);
void select_f32_avx2(const Selection& selection, const float* values, const float* levels, float* scratch,
                     float* out);
void select_f64_avx2(const Selection& selection, const double* values, const double* levels, double* scratch,
                     double* out);
void select_f32_avx512(const Selection& selection, const float* values, const float* levels, float* scratch,
                       float* out);
void select_f64_avx512(const Selection& selection, const double* values, const double* levels,
                       double* scratch, double* out);
float value_at_f32_portable(const float* values, std::int64_t n, std::int64_t rank, bool magnitude,
                            float* scratch);
double value_at_f64_portable(const double* values, std::int64_t n, std::int64_t rank, bool magnitude,
                             double* scratch);
float value_at_f32_avx2(const float* values, std::int64_t n, std::int64_t rank, bool magnitude,
                        float* scratch);
double value_at_f64_avx2(const double* values, std::int64_t n, std::int64_t rank, bool magnitude,
                         double* scratch);
float value_at_f32_avx512(const float* values, std::int64_t n, std::int64_t rank, bool magnitude,
                          float* scratch);
double value_at_f64_avx512(const double* values, std::int64_t n, std::int64_t rank, bool magnitude,
                           double* scratch);

}  // namespace equibit
