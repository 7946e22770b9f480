// The operators of the domain `equibit`, as the exporter names them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "equibit/convolution.h"
#include "ort_api.h"

namespace equibit::ort {

enum class Base { linear, conv, conv_transpose };
enum class Levels { two, offset, three };

// Whether X and Y of a layer of signs are words.
struct Words {
  bool taken = false;
  bool given = false;
};

// [Xnor|XnorWords|Int8](Binary|Offset|Ternary)(Linear|Conv|ConvTranspose)[Add][Relu|PRelu|Clip|Sign]. The
// name says which inputs and attributes a node has (src/equibit/packed/onnx_ops.py); the parts of the name
// are these fields.
struct Operator : CustomOp {
  Operator(InputKind input_kind, Levels weight_levels, Base layer, bool with_residual,
           Activation activation_kind, Words in_words = {});

  // Position of an input, and whether there is one of that name.
  bool has(const char* input) const;
  std::size_t position(const char* input) const;

  std::string name;
  std::vector<std::string> inputs;
  InputKind input;
  Levels levels;
  Base base;
  bool residual;
  Activation activation;
  Words words;
  const Kernels* kernels = nullptr;  // of the level in use
  int threads = 1;                   // of the session
};

// All of them.
std::vector<Operator> operators(const Kernels& kernels, int threads);

}  // namespace equibit::ort
