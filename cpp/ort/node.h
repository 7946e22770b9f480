// What a node of a file says about its layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "equibit/convolution.h"
#include "operators.h"
#include "ort_api.h"

namespace equibit::ort {

// The layer of a node; `layer` points into the other members and into the file's constants.
struct Node {
  // Reads and checks the node.
  //
  // Throws Problem where it is not one of ours, or the file's constants do not fit its shape.
  Node(const Operator& op, const Api* api, const KernelInfo* info);
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  Layer layer;
  std::size_t axes = 0;  // of the places; 0: a linear layer

 private:
  std::vector<std::uint8_t> bits_;
  std::vector<std::uint8_t> mask_;
  std::vector<float> slope_;
};

}  // namespace equibit::ort
