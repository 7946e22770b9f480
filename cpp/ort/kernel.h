// One node of a session: its weights laid out, and what a run does.
#pragma once

#include "operators.h"
#include "ort_api.h"

namespace equibit::ort {

// The callbacks of every operator. Errors name the layer.
Status* create_kernel(const Operator& op, const Api* api, const KernelInfo* info, void** kernel) noexcept;
Status* compute(void* kernel, KernelContext* context) noexcept;
void destroy_kernel(void* kernel) noexcept;

}  // namespace equibit::ort
