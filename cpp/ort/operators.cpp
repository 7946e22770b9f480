#include "operators.h"

#include <algorithm>

#include "kernel.h"

namespace equibit::ort {

namespace {

const char* word(InputKind input) {
  return input == InputKind::sign ? "Xnor" : input == InputKind::int8 ? "Int8" : "";
}

const char* word(Levels levels) {
  return levels == Levels::two ? "Binary" : levels == Levels::offset ? "Offset" : "Ternary";
}

const char* word(Base base) {
  return base == Base::linear ? "Linear" : base == Base::conv ? "Conv" : "ConvTranspose";
}

const char* word(Activation activation) {
  switch (activation) {
    case Activation::relu:
      return "Relu";
    case Activation::prelu:
      return "PRelu";
    case Activation::hardtanh:
      return "Clip";
    case Activation::none:
      break;
  }
  return "";
}

std::vector<std::string> input_names(const Operator& op) {
  std::vector<std::string> names{"X", "bits"};
  if (op.levels == Levels::three) names.emplace_back("mask");
  names.emplace_back("scale");
  if (op.levels == Levels::offset) names.emplace_back("offset");
  names.emplace_back("bias");
  if (op.activation == Activation::prelu) names.emplace_back("slope");
  if (op.residual) names.emplace_back("residual");
  return names;
}

const Operator& self(const CustomOp* op) { return *static_cast<const Operator*>(op); }

// The callbacks that are the same for every operator.
CustomOp callbacks() {
  CustomOp op{};
  op.version = api_version;
  op.get_name = [](const CustomOp* op) { return self(op).name.c_str(); };
  op.get_execution_provider = [](const CustomOp*) -> const char* { return nullptr; };  // the CPU
  op.get_input_type = [](const CustomOp* op, std::size_t i) -> int {
    const std::string& name = self(op).inputs[i];
    if (name == "X" && self(op).words.taken) return uint64;
    return name == "bits" || name == "mask" ? uint8 : float32;
  };
  op.get_input_count = [](const CustomOp* op) { return self(op).inputs.size(); };
  op.get_output_type = [](const CustomOp* op, std::size_t) -> int {
    return self(op).words.given ? uint64 : float32;
  };
  op.get_output_count = [](const CustomOp*) -> std::size_t { return 1; };
  op.get_input_characteristic = [](const CustomOp*, std::size_t) -> int { return required; };
  op.get_output_characteristic = [](const CustomOp*, std::size_t) -> int { return required; };
  op.get_input_memory_type = [](const CustomOp*, std::size_t) { return 0; };
  op.create_kernel_checked = [](const CustomOp* op, const Api* api, const KernelInfo* info, void** kernel) {
    return create_kernel(self(op), api, info, kernel);
  };
  op.compute_checked = compute;
  op.destroy_kernel = destroy_kernel;
  return op;
}

// Those between two layers of signs.
void add_operators_of_words(std::vector<Operator>& all) {
  for (const Base base : {Base::linear, Base::conv}) {
    for (const Levels levels : {Levels::two, Levels::offset, Levels::three}) {
      for (const bool residual : {false, true}) {
        for (const Activation activation :
             {Activation::none, Activation::relu, Activation::prelu, Activation::hardtanh}) {
          all.emplace_back(InputKind::sign, levels, base, residual, activation, Words{true, false});
        }
      }
      if (levels == Levels::offset) continue;
      for (const bool taken : {false, true}) {
        all.emplace_back(InputKind::sign, levels, base, false, Activation::none, Words{taken, true});
      }
    }
  }
}

std::vector<Operator> all_operators() {
  std::vector<Operator> all;
  add_operators_of_words(all);
  for (const InputKind input : {InputKind::real, InputKind::sign, InputKind::int8}) {
    for (const Levels levels : {Levels::two, Levels::offset, Levels::three}) {
      for (const Base base : {Base::linear, Base::conv, Base::conv_transpose}) {
        for (const bool residual : {false, true}) {
          for (const Activation activation :
               {Activation::none, Activation::relu, Activation::prelu, Activation::hardtanh}) {
            all.emplace_back(input, levels, base, residual, activation);
          }
        }
      }
    }
  }
  return all;
}

}  // namespace

Operator::Operator(InputKind input_kind, Levels weight_levels, Base layer, bool with_residual,
                   Activation activation_kind, Words in_words)
    : CustomOp(callbacks()),
      name(std::string(word(input_kind)) + (in_words.taken ? "Words" : "") + word(weight_levels) +
           word(layer) + (with_residual ? "Add" : "") + word(activation_kind) +
           (in_words.given ? "Sign" : "")),
      input(input_kind),
      levels(weight_levels),
      base(layer),
      residual(with_residual),
      activation(activation_kind),
      words(in_words) {
  inputs = input_names(*this);
}

bool Operator::has(const char* name) const {
  return std::find(inputs.begin(), inputs.end(), name) != inputs.end();
}

std::size_t Operator::position(const char* name) const {
  return static_cast<std::size_t>(std::find(inputs.begin(), inputs.end(), name) - inputs.begin());
}

std::vector<Operator> operators(const Kernels& kernels, int threads) {
  std::vector<Operator> all = all_operators();
  for (Operator& op : all) {
    op.kernels = &kernels;
    op.threads = threads;
  }
  return all;
}

}  // namespace equibit::ort
