#include "pool.h"

#include <algorithm>
#include <cstdint>

#include "attributes.h"
#include "context.h"
#include "equibit/convolution.h"
#include "session_threads.h"
#include "status.h"

namespace equibit::ort {

namespace {

// Sizes along depth, height and width.
struct Window {
  Size3 kernel{1, 1, 1};
  Size3 stride{1, 1, 1};
  bool ceil = false;
  std::size_t axes = 0;

  // Whether it halves height and width, the usual case.
  bool halves() const {
    return kernel == Size3{1, 2, 2} && stride[0] == 1 && stride[1] == 2 && stride[2] == 2;
  }
};

// Means of 2x2 places next to each other, which the compiler turns into vectors.
void halve(const float* above, const float* below, std::int64_t count, float* y) {
  for (std::int64_t i = 0; i < count; ++i) {
    y[i] = (above[2 * i] + above[2 * i + 1] + below[2 * i] + below[2 * i + 1]) * 0.25F;
  }
}

// Some channels of some images, the places of each a map.
struct Pooling {
  const Window& window;
  Size3 input, output;
  std::int64_t maps, tasks;
  const float* x;
  float* y;

  std::int64_t size(const Size3& places) const { return places[0] * places[1] * places[2]; }

  const float* row(const float* map, std::int64_t depth, std::int64_t height) const {
    return map + (depth * input[1] + height) * input[2];
  }

  // Mean over the places that there are of one window.
  float mean(const float* map, const Size3& place) const {
    Size3 first, last;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      first[axis] = place[axis] * window.stride[axis];
      last[axis] = std::min(first[axis] + window.kernel[axis], input[axis]);
    }
    float sum = 0;
    for (std::int64_t depth = first[0]; depth < last[0]; ++depth) {
      for (std::int64_t height = first[1]; height < last[1]; ++height) {
        const float* values = row(map, depth, height);
        for (std::int64_t width = first[2]; width < last[2]; ++width) sum += values[width];
      }
    }
    return sum / static_cast<float>((last[0] - first[0]) * (last[1] - first[1]) * (last[2] - first[2]));
  }

  void pool_row(const float* map, std::int64_t depth, std::int64_t height, float* means) const {
    std::int64_t done = 0;
    if (window.halves() && 2 * height + 1 < input[1]) {
      done = input[2] / 2;
      halve(row(map, depth, 2 * height), row(map, depth, 2 * height + 1), done, means);
    }
    for (std::int64_t width = done; width < output[2]; ++width)
      means[width] = mean(map, {depth, height, width});
  }

  void run(std::int64_t task) const {
    for (std::int64_t map = maps * task / tasks; map < maps * (task + 1) / tasks; ++map) {
      float* means = y + map * size(output);
      for (std::int64_t depth = 0; depth < output[0]; ++depth) {
        for (std::int64_t height = 0; height < output[1]; ++height, means += output[2]) {
          pool_row(x + map * size(input), depth, height, means);
        }
      }
    }
  }
};

class Pool {
 public:
  Pool(const PoolOperator& op, const Api* api, const KernelInfo* info, std::string name)
      : api_(api), name_(std::move(name)), threads_(op.threads) {
    const Attributes attributes(api, info);
    const std::vector<std::int64_t> kernel = attributes.ints("kernel_shape");
    window_.axes = kernel.size();
    if (kernel.empty() || kernel.size() > 3)
      throw Problem("the attribute kernel_shape must have 1 to 3 values.");
    const std::vector<std::int64_t> stride = attributes.ints("strides", kernel.size());
    for (std::size_t i = 0; i < kernel.size(); ++i) {
      if (kernel[i] < 1 || stride[i] < 1) throw Problem("kernel_shape and strides must be at least 1.");
      window_.kernel[3 - kernel.size() + i] = kernel[i];
      window_.stride[3 - kernel.size() + i] = stride[i];
    }
    window_.ceil = attributes.integer("ceil_mode") != 0;
  }

  void compute(KernelContext* raw) const {
    const Context context(api_, raw);
    const Value* x = context.input(0);
    const TensorShape input = context.shape(x);
    if (input.rank != window_.axes + 2) {
      throw Problem("the input has the shape " + input.describe() + ", not " +
                    std::to_string(window_.axes + 2) + " dimensions.");
    }
    TensorShape output = input;
    Size3 from{1, 1, 1}, to{1, 1, 1};
    for (std::size_t i = 0; i < window_.axes; ++i) {
      const std::size_t axis = 3 - window_.axes + i;
      from[axis] = input.sizes[2 + i];
      to[axis] = output.sizes[2 + i] = places(axis, from[axis]);
    }
    Value* y = context.output(output);
    const std::int64_t maps = input.sizes[0] * input.sizes[1];
    const std::int64_t tasks = std::min<std::int64_t>(threads_, maps);
    const Pooling pooling{window_, from, to, maps, tasks, context.data(x), context.data(y)};
    if (tasks == 0) return;
    SessionThreads(api_, raw, threads_)
        .run(static_cast<std::size_t>(tasks), run_task, const_cast<Pooling*>(&pooling));
  }

  const Api* api() const { return api_; }
  const std::string& name() const { return name_; }

 private:
  static void run_task(void* pooling, std::size_t task) {
    static_cast<const Pooling*>(pooling)->run(static_cast<std::int64_t>(task));
  }

  // Of the output; every window begins inside the input.
  std::int64_t places(std::size_t axis, std::int64_t size) const {
    const std::int64_t room = size - window_.kernel[axis], stride = window_.stride[axis];
    if (room < 0 && !(window_.ceil && size > 0)) {
      throw Problem("the input is smaller than the window along an axis.");
    }
    if (!window_.ceil) return room / stride + 1;
    return std::min((std::max<std::int64_t>(room, 0) + stride - 1) / stride + 1, (size - 1) / stride + 1);
  }

  const Api* api_;
  std::string name_;
  int threads_;
  Window window_;
};

}  // namespace

PoolOperator::PoolOperator(int session_threads) : CustomOp{}, threads(session_threads) {
  version = api_version;
  get_name = [](const CustomOp*) { return "AveragePool"; };
  get_execution_provider = [](const CustomOp*) -> const char* { return nullptr; };
  get_input_type = [](const CustomOp*, std::size_t) -> int { return float32; };
  get_input_count = [](const CustomOp*) -> std::size_t { return 1; };
  get_output_type = [](const CustomOp*, std::size_t) -> int { return float32; };
  get_output_count = [](const CustomOp*) -> std::size_t { return 1; };
  get_input_characteristic = [](const CustomOp*, std::size_t) -> int { return required; };
  get_output_characteristic = [](const CustomOp*, std::size_t) -> int { return required; };
  get_input_memory_type = [](const CustomOp*, std::size_t) { return 0; };
  create_kernel_checked = [](const CustomOp* op, const Api* api, const KernelInfo* info, void** kernel) {
    return guarded(api, [&] {
      named(Attributes(api, info).node_name(), [&](const std::string& name) {
        *kernel = new Pool(*static_cast<const PoolOperator*>(op), api, info, name);
      });
    });
  };
  compute_checked = [](void* kernel, KernelContext* context) {
    const Pool& self = *static_cast<const Pool*>(kernel);
    return guarded(self.api(),
                   [&] { named(self.name(), [&](const std::string&) { self.compute(context); }); });
  };
  destroy_kernel = [](void* kernel) { delete static_cast<Pool*>(kernel); };
}

}  // namespace equibit::ort
