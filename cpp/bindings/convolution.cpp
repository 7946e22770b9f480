// Convolution: a layer with 1-bit weights, laid out once and run on arrays.

#include "equibit/convolution.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>

#include "arrays.h"
#include "equibit/choice.h"
#include "equibit/parallel.h"
#include "errors.h"
#include "functions.h"
#include "levels.h"

namespace equibit {

namespace {

using Bytes = Input<std::uint8_t>;
using Floats = Input<float>;
using Elements = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;  // floats, or words of signs
using Result = nb::ndarray<nb::c_contig, nb::device::cpu>;

// The threads of the OpenMP runtime in the process, which is torch's.
class OpenMp final : public ParallelFor {
 public:
  explicit OpenMp(int threads) : threads_(threads) {}
  int threads() const override { return threads_; }
  void run(std::size_t count, Task task, void* user) override {
    run_parallel(threads_, static_cast<std::int64_t>(count), 1,
                 [&](int, std::int64_t first, std::int64_t last) {
                   for (std::int64_t i = first; i < last; ++i) task(user, static_cast<std::size_t>(i));
                 });
  }

 private:
  int threads_;
};

// Scratch memory of the calling thread; it grows and is kept.
void* scratch_of_thread(std::size_t bytes) {
  constexpr std::size_t border = 64;
  thread_local std::vector<std::uint8_t> memory;
  if (memory.size() < bytes + border) memory.resize(bytes + border);
  return memory.data() + (border - reinterpret_cast<std::uintptr_t>(memory.data()) % border) % border;
}

const float* numbers(const char* name, const std::optional<Floats>& values, std::int64_t filters) {
  if (!values) return nullptr;
  if (values->ndim() != 1 || static_cast<std::int64_t>(values->shape(0)) != filters) {
    raise_input_error(std::string(name) + " does not hold one number for each of " + std::to_string(filters) +
                      " filters.");
  }
  return values->data();
}

Activation activation_named(const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  if (name == "prelu") return Activation::prelu;
  if (name == "hardtanh") return Activation::hardtanh;
  raise_input_error("activation is '" + name + "'. Allowed: none, relu, prelu, hardtanh.");
}

InputKind input_named(const std::string& name) {
  if (name == "real") return InputKind::real;
  if (name == "sign" || name == "words") return InputKind::sign;
  if (name == "int8") return InputKind::int8;
  raise_input_error("input is '" + name + "'. Allowed: real, sign, words, int8.");
}

bool output_named(const std::string& name) {
  if (name == "real" || name == "words") return name == "words";
  raise_input_error("output is '" + name + "'. Allowed: real, words.");
}

const Level& level_named(const std::string& name) {
  if (name.empty()) return active_level();
  const Level* level = find_level(name.c_str());
  if (level != nullptr && runs_here(*level)) return *level;
  raise_input_error("level '" + name + "' does not run here.");
}

// A layer and the level it was laid out for.
class Laid {
 public:
  Laid(const Layer& layer, const Level& level)
      : geometry_(layer.geometry),
        takes_words_(layer.takes_words),
        gives_words_(layer.gives_words),
        level_(level.name),
        convolution_(layer, kernels_of(level)) {}

  const char* level() const { return level_; }

  std::string explain(std::int64_t batch, const Size3& input) const {
    check(batch, input);
    return convolution_.explain(batch, input);
  }

  Size3 output(const Size3& input) const {
    check(0, input);
    return output_size(geometry_, input);
  }

  void run(const Elements& x, const std::optional<Floats>& residual, const Result& y, std::int64_t batch,
           const Size3& input, int threads) const {
    check(batch, input);
    if (threads < 1 || threads > 4096) {
      raise_input_error("threads is " + std::to_string(threads) + ". Allowed: 1 to 4096.");
    }
    const auto count = [batch](std::int64_t channels, const Size3& size, bool words) {
      return static_cast<std::size_t>(batch * (words ? words_for(channels) : channels) * size[0] * size[1] *
                                      size[2]);
    };
    const std::size_t results = count(geometry_.filters, output_size(geometry_, input), gives_words_);
    const std::size_t inputs = count(geometry_.groups * geometry_.channels, input, takes_words_);
    if (x.size() != inputs || y.size() != results || (residual && residual->size() != results)) {
      raise_input_error("x, y or the residual does not have the size of the layer's input or output.");
    }
    if (x.dtype() != type_of(takes_words_) || y.dtype() != type_of(gives_words_)) {
      raise_input_error("x or y does not hold float32, or uint64 where the layer takes or gives words.");
    }
    if (residual && gives_words_) raise_input_error("a layer that gives words takes no residual.");
    const void* x_data = x.data();
    const float* residual_data = residual ? residual->data() : nullptr;
    void* y_data = y.data();
    const nb::gil_scoped_release released;
    OpenMp parallel(threads);
    void* scratch = scratch_of_thread(convolution_.scratch_size(batch, input, threads));
    convolution_.run(x_data, residual_data, y_data, batch, input, scratch, parallel);
  }

 private:
  static nb::dlpack::dtype type_of(bool words) { return words ? nb::dtype<Word>() : nb::dtype<float>(); }

  void check(std::int64_t batch, const Size3& input) const {
    const std::string problem = find_problem(geometry_, batch, input);
    if (!problem.empty()) raise_input_error(problem);
  }

  Geometry geometry_;
  bool takes_words_, gives_words_;
  const char* level_;
  Convolution convolution_;
};

void make(Laid* self, const Bytes& bits, const std::optional<Bytes>& mask, const Floats& scale,
          const std::optional<Floats>& offset, const std::optional<Floats>& bias, const Size3& kernel,
          const Size3& stride, const Size3& dilation, const Size3& pads_begin, const Size3& pads_end,
          std::int64_t channels, std::int64_t groups, bool transposed, const Size3& output_padding,
          const std::string& input, std::int32_t pad_value, float input_scale, const std::string& activation,
          const std::optional<Floats>& slope, float low, float high, const std::string& output,
          const std::string& level) {
  if (bits.ndim() != 2) raise_input_error("bits has " + std::to_string(bits.ndim()) + " axes; needed: 2.");
  Layer layer;
  layer.geometry = {groups,        channels, static_cast<std::int64_t>(bits.shape(0)),
                    kernel,        stride,   dilation,
                    pads_begin,    pads_end, transposed,
                    output_padding};
  layer.input = input_named(input);
  layer.takes_words = input == "words";
  layer.gives_words = output_named(output);
  layer.offset = offset ? offset->data() : nullptr;
  layer.pad_value = pad_value;
  layer.input_scale = input_scale;
  layer.activation = activation_named(activation);
  layer.low = low;
  layer.high = high;
  const std::string problem = find_problem(layer);
  if (!problem.empty()) raise_input_error(problem);
  const std::int64_t n = kernel[0] * kernel[1] * kernel[2] * channels;
  const Rows signs("bits", bits, 2, n);
  std::optional<Rows> kept;
  if (mask) {
    kept.emplace("mask", *mask, 2, n);
    check_mask(signs, *kept);
  }
  const std::int64_t filters = layer.geometry.filters;
  layer.bits = reinterpret_cast<const std::uint8_t*>(signs.words());
  layer.mask = kept ? reinterpret_cast<const std::uint8_t*>(kept->words()) : nullptr;
  layer.scale = numbers("scale", scale, filters);
  layer.offset = numbers("offset", offset, filters);
  layer.bias = numbers("bias", bias, filters);
  layer.slope = numbers("slope", slope, filters);
  if (layer.activation == Activation::prelu && layer.slope == nullptr) {
    raise_input_error("a prelu needs its slopes, one for each filter.");
  }
  new (self) Laid(layer, level_named(level));
}

}  // namespace

void define_convolution(nb::module_& module) {
  const Size3 ones{1, 1, 1}, zeros{0, 0, 0};
  nb::class_<Laid>(module, "Convolution")
      .def("__init__", make, nb::arg("bits").noconvert(), nb::arg("mask").noconvert().none(),
           nb::arg("scale").noconvert(), nb::arg("offset").noconvert().none(),
           nb::arg("bias").noconvert().none(), nb::kw_only(), nb::arg("kernel") = ones,
           nb::arg("stride") = ones, nb::arg("dilation") = ones, nb::arg("pads_begin") = zeros,
           nb::arg("pads_end") = zeros, nb::arg("channels"), nb::arg("groups") = 1,
           nb::arg("transposed") = false, nb::arg("output_padding") = zeros, nb::arg("input") = "real",
           nb::arg("pad_value") = 0, nb::arg("input_scale") = 1.0F, nb::arg("activation") = "none",
           nb::arg("slope").noconvert().none() = nb::none(), nb::arg("low") = -1.0F, nb::arg("high") = 1.0F,
           nb::arg("output") = "real", nb::arg("level") = "")
      .def_prop_ro("level", &Laid::level)
      .def("explain", &Laid::explain, nb::arg("batch"), nb::arg("input"))
      .def("output_size", &Laid::output, nb::arg("input"))
      .def("run", &Laid::run, nb::arg("x").noconvert(), nb::arg("residual").noconvert().none(),
           nb::arg("y").noconvert(), nb::arg("batch"), nb::arg("input"), nb::arg("threads"));
}

}  // namespace equibit
