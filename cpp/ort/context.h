// The inputs and outputs of one run of a node.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "ort_api.h"
#include "status.h"

namespace equibit::ort {

// Sizes of a tensor, without memory of its own.
struct TensorShape {
  static constexpr std::size_t most = 8;
  std::array<std::int64_t, most> sizes{};
  std::size_t rank = 0;

  bool operator==(const TensorShape& other) const {
    return rank == other.rank && std::equal(sizes.begin(), sizes.begin() + rank, other.sizes.begin());
  }

  std::string describe() const {
    std::string text = "(";
    for (std::size_t i = 0; i < rank; ++i) text += (i == 0 ? "" : ", ") + std::to_string(sizes[i]);
    return text + ")";
  }
};

class Context {
 public:
  Context(const Api* api, KernelContext* context) : api_(api), context_(context) {}

  const Value* input(std::size_t index) const {
    const Value* value = nullptr;
    call<GetInput>(api_, static_cast<const KernelContext*>(context_), index, &value);
    return value;
  }

  Value* output(const TensorShape& shape) const {
    Value* value = nullptr;
    call<GetOutput>(api_, context_, std::size_t{0}, shape.sizes.data(), shape.rank, &value);
    return value;
  }

  TensorShape shape(const Value* value) const {
    TensorInfo* info = nullptr;
    call<GetTensorInfo>(api_, value, &info);
    TensorShape shape;
    Status* status = get<GetRank>(api_)(info, &shape.rank);
    const bool fits = shape.rank <= TensorShape::most;
    if (status == nullptr && fits) status = get<GetDimensions>(api_)(info, shape.sizes.data(), shape.rank);
    get<ReleaseTensorInfo>(api_)(info);
    check(api_, status);
    if (!fits) throw Problem("an input has more than " + std::to_string(TensorShape::most) + " dimensions.");
    return shape;
  }

  template <typename Element = float>
  Element* data(const Value* value) const {
    void* elements = nullptr;
    call<GetTensorData>(api_, const_cast<Value*>(value), &elements);
    return static_cast<Element*>(elements);
  }

 private:
  const Api* api_;
  KernelContext* context_;
};

}  // namespace equibit::ort
