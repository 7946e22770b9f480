// A layer with 1-bit weights, ready to run: linear, convolution and transposed convolution in up to three
// dimensions. Knows neither Python nor torch nor ONNX.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "equibit/kernels.h"

namespace equibit {

// Sizes along depth, height and width; a layer with fewer axes has 1 (0 for paddings) at the front.
using Size3 = std::array<std::int64_t, 3>;

// A linear layer is a convolution of places {1, 1, 1} with kernel {1, 1, 1}, its rows the batch.
struct Geometry {
  std::int64_t groups = 1;
  std::int64_t channels = 0;  // of the input, in one group
  std::int64_t filters = 0;   // in all groups together
  Size3 kernel{1, 1, 1};
  Size3 stride{1, 1, 1};
  Size3 dilation{1, 1, 1};
  Size3 pads_begin{0, 0, 0};  // of a transposed convolution: what the output is cropped by
  Size3 pads_end{0, 0, 0};
  bool transposed = false;
  Size3 output_padding{0, 0, 0};  // of a transposed convolution
};

// What the weights multiply: the input itself, its signs (1W1A), or round(x / input_scale) in -127 .. 127
// (1W8A).
enum class InputKind { real, sign, int8 };

// Rows as in a file: [filters][row_bytes], a filter of kernel * channels bits, channels fastest, padded to
// whole 64-bit words by zero bits. Null: the layer has no such array. Copied; need not outlive the
// constructor.
struct Layer {
  Geometry geometry;
  const std::uint8_t* bits = nullptr;
  const std::uint8_t* mask = nullptr;  // three-level weights: which are kept
  const float* scale = nullptr;        // [filters], as are offset, bias and slope
  const float* offset = nullptr;
  const float* bias = nullptr;
  InputKind input = InputKind::real;
  std::int32_t pad_value = 0;  // sign: what a place outside the input reads, -1, 0 or 1
  bool takes_words = false;    // sign: the input is words of signs already
  bool gives_words = false;    // sign: the output is the signs of scale * dot + bias, in words
  float input_scale = 1;       // int8
  Activation activation = Activation::none;
  const float* slope = nullptr;  // prelu
  float low = -1, high = 1;      // hardtanh
};

// Runs tasks 0 .. count - 1, possibly at once, and returns when all have ended.
class ParallelFor {
 public:
  using Task = void (*)(void* user, std::size_t task);

  virtual ~ParallelFor() = default;
  virtual int threads() const = 0;  // how many tasks at once are of use, at least 1
  virtual void run(std::size_t count, Task task, void* user) = 0;
};

// The calling thread does everything.
class Alone final : public ParallelFor {
 public:
  int threads() const override { return 1; }
  void run(std::size_t count, Task task, void* user) override {
    for (std::size_t i = 0; i < count; ++i) task(user, i);
  }
};

// What is wrong with a layer (its sizes, pad_value, scale of the input), or "" where nothing is. Whoever
// makes a Convolution has asked, and has checked the lengths of its arrays and that padding bits are zero.
std::string find_problem(const Layer& layer);

// The same for inputs of that size: what makes the layer unable to run on them.
std::string find_problem(const Geometry& geometry, std::int64_t batch, const Size3& input);

// Places of the output along each axis.
Size3 output_size(const Geometry& geometry, const Size3& input);

class Plan;

class Convolution {
 public:
  // Lays the weights out for the kernels of one level.
  Convolution(const Layer& layer, const Kernels& kernels);
  ~Convolution();
  Convolution(Convolution&&) noexcept;
  Convolution& operator=(Convolution&&) noexcept;

  // Bytes of scratch memory that `run` takes for such an input with that many threads; it lies on a 64-byte
  // border. The first call for a size makes the tables of places that `run` reads; they are kept.
  std::size_t scratch_size(std::int64_t batch, const Size3& input, int threads) const;

  // y = activation(layer(x) + residual). x [batch][groups * channels][input], y and residual (null: none)
  // [batch][filters][output], floats, all contiguous; y may be the residual. Where x or y are words, bit
  // c % 64 of element [batch][c / 64][place] is set where channel c is +1; bits without a channel are clear.
  // Several threads may run the same layer at once, each with scratch memory of its own. Allocates nothing
  // where scratch_size was asked before.
  void run(const void* x, const float* residual, void* y, std::int64_t batch, const Size3& input,
           void* scratch, ParallelFor& parallel) const;

  // The kernel chosen for an input of that size and why, for people.
  std::string explain(std::int64_t batch, const Size3& input) const;

 private:
  std::unique_ptr<Plan> plan_;
};

}  // namespace equibit
