#include "words_pool.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "attributes.h"
#include "context.h"
#include "equibit/convolution.h"
#include "equibit/word.h"
#include "status.h"

namespace equibit::ort {

namespace {

// Sizes along depth, height and width.
struct Window {
  Size3 kernel{1, 1, 1};
  Size3 stride{1, 1, 1};
  Size3 pads_begin{0, 0, 0}, pads_end{0, 0, 0};
  std::size_t axes = 0;

  Window(const Attributes& attributes) {
    const std::vector<std::int64_t> sizes = attributes.ints("kernel_shape");
    axes = sizes.size();
    if (sizes.empty() || sizes.size() > 3)
      throw Problem("the attribute kernel_shape must have 1 to 3 values.");
    const std::vector<std::int64_t> strides = attributes.ints("strides", axes);
    const std::vector<std::int64_t> pads = attributes.ints("pads", 2 * axes);
    for (std::size_t i = 0; i < axes; ++i) {
      const std::size_t axis = 3 - axes + i;
      kernel[axis] = sizes[i];
      stride[axis] = strides[i];
      pads_begin[axis] = pads[i];
      pads_end[axis] = pads[axes + i];
      const std::int64_t pad = std::max(pads[i], pads[axes + i]);
      if (sizes[i] < 1 || strides[i] < 1 || std::min(pads[i], pads[axes + i]) < 0 || pad >= sizes[i]) {
        throw Problem("kernel_shape and strides must be at least 1, and pads less than kernel_shape.");
      }
    }
  }

  // Places of the output along an axis.
  std::int64_t places(std::size_t axis, std::int64_t size) const {
    const std::int64_t room = size + pads_begin[axis] + pads_end[axis] - kernel[axis];
    if (room < 0) throw Problem("the input is smaller than the window along an axis.");
    return room / stride[axis] + 1;
  }
};

// y[place] = OR over the window of x[first + place * stride + i], the places there are of it; all ^ flips.
void pool_width(const Word* x, std::int64_t size, const Window& window, Word flips, Word* y,
                std::int64_t places) {
  for (std::int64_t place = 0; place < places; ++place) {
    const std::int64_t first = place * window.stride[2] - window.pads_begin[2];
    const std::int64_t last = std::min(first + window.kernel[2], size);
    for (std::int64_t i = std::max<std::int64_t>(first, 0); i < last; ++i) y[place] |= x[i] ^ flips;
  }
}

void pool_map(const Word* x, const Size3& input, const Window& window, Word flips, Word* y,
              const Size3& output) {
  const auto range = [&](std::size_t axis, std::int64_t place) {
    const std::int64_t first = place * window.stride[axis] - window.pads_begin[axis];
    return std::pair{std::max<std::int64_t>(first, 0), std::min(first + window.kernel[axis], input[axis])};
  };
  for (std::int64_t depth = 0; depth < output[0]; ++depth) {
    for (std::int64_t height = 0; height < output[1]; ++height, y += output[2]) {
      std::fill(y, y + output[2], Word{0});
      const auto [front, back] = range(0, depth);
      const auto [top, bottom] = range(1, height);
      for (std::int64_t d = front; d < back; ++d) {
        for (std::int64_t h = top; h < bottom; ++h) {
          pool_width(x + (d * input[1] + h) * input[2], input[2], window, flips, y, output[2]);
        }
      }
      for (std::int64_t width = 0; width < output[2]; ++width) y[width] ^= flips;
    }
  }
}

class WordsPool {
 public:
  WordsPool(const Api* api, const KernelInfo* info, std::string name)
      : api_(api), name_(std::move(name)), window_(Attributes(api, info)) {}

  void compute(KernelContext* raw) const {
    const Context context(api_, raw);
    const Value *x = context.input(0), *flips = context.input(1);
    const TensorShape input = context.shape(x), words = context.shape(flips);
    if (input.rank != window_.axes + 2) {
      throw Problem("the input has the shape " + input.describe() + ", not " +
                    std::to_string(window_.axes + 2) + " dimensions.");
    }
    if (words.rank != 1 || words.sizes[0] != input.sizes[1]) {
      throw Problem("flips has the shape " + words.describe() + ", not one word for each of the input's " +
                    std::to_string(input.sizes[1]) + ".");
    }
    TensorShape output = input;
    Size3 from{1, 1, 1}, to{1, 1, 1};
    for (std::size_t i = 0; i < window_.axes; ++i) {
      const std::size_t axis = 3 - window_.axes + i;
      from[axis] = input.sizes[2 + i];
      to[axis] = output.sizes[2 + i] = window_.places(axis, from[axis]);
    }
    const Word* taken = context.data<Word>(x);
    const Word* masks = context.data<Word>(flips);
    Word* given = context.data<Word>(context.output(output));
    for (std::int64_t map = 0; map < input.sizes[0] * input.sizes[1]; ++map) {
      pool_map(taken, from, window_, masks[map % input.sizes[1]], given, to);
      taken += from[0] * from[1] * from[2];
      given += to[0] * to[1] * to[2];
    }
  }

  const Api* api() const { return api_; }
  const std::string& name() const { return name_; }

 private:
  const Api* api_;
  std::string name_;
  Window window_;
};

}  // namespace

WordsPoolOperator::WordsPoolOperator() : CustomOp{} {
  version = api_version;
  get_name = [](const CustomOp*) { return "WordsMaxPool"; };
  get_execution_provider = [](const CustomOp*) -> const char* { return nullptr; };
  get_input_type = [](const CustomOp*, std::size_t) -> int { return uint64; };
  get_input_count = [](const CustomOp*) -> std::size_t { return 2; };
  get_output_type = [](const CustomOp*, std::size_t) -> int { return uint64; };
  get_output_count = [](const CustomOp*) -> std::size_t { return 1; };
  get_input_characteristic = [](const CustomOp*, std::size_t) -> int { return required; };
  get_output_characteristic = [](const CustomOp*, std::size_t) -> int { return required; };
  get_input_memory_type = [](const CustomOp*, std::size_t) { return 0; };
  create_kernel_checked = [](const CustomOp*, const Api* api, const KernelInfo* info, void** kernel) {
    return guarded(api, [&] {
      named(Attributes(api, info).node_name(),
            [&](const std::string& name) { *kernel = new WordsPool(api, info, name); });
    });
  };
  compute_checked = [](void* kernel, KernelContext* context) {
    const WordsPool& self = *static_cast<const WordsPool*>(kernel);
    return guarded(self.api(),
                   [&] { named(self.name(), [&](const std::string&) { self.compute(context); }); });
  };
  destroy_kernel = [](void* kernel) { delete static_cast<WordsPool*>(kernel); };
}

}  // namespace equibit::ort
