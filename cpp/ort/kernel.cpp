#include "kernel.h"

#include <algorithm>
#include <memory>
#include <string>

#include "attributes.h"
#include "context.h"
#include "equibit/convolution.h"
#include "equibit/word.h"
#include "node.h"
#include "scratch.h"
#include "session_threads.h"
#include "status.h"

namespace equibit::ort {

namespace {

class Kernel {
 public:
  Kernel(const Operator& op, const Api* api, const Node& node, std::string name)
      : api_(api),
        name_(std::move(name)),
        geometry_(node.layer.geometry),
        axes_(node.axes),
        linear_(op.base == Base::linear),
        words_(op.words),
        residual_(op.residual ? op.position("residual") : 0),
        threads_(op.threads),
        convolution_(node.layer, *op.kernels),
        scratch_(ScratchPool::shared()) {}

  void compute(KernelContext* raw) const {
    const Context context(api_, raw);
    const Value* x = context.input(0);
    const TensorShape input = context.shape(x);
    const Work work = plan(input);
    const Value* residual = residual_ == 0 ? nullptr : context.input(residual_);
    if (residual != nullptr && !(context.shape(residual) == work.output)) {
      throw Problem("the residual has the shape " + context.shape(residual).describe() + ", the output " +
                    work.output.describe() + ".");
    }
    Value* y = context.output(work.output);
    if (work.batch == 0) return;
    const ScratchPool::Lease lease(*scratch_, convolution_.scratch_size(work.batch, work.places, threads_));
    SessionThreads threads(api_, raw, threads_);
    convolution_.run(context.data<void>(x), residual == nullptr ? nullptr : context.data(residual),
                     context.data<void>(y), work.batch, work.places, lease.memory(), threads);
  }

  const Api* api() const { return api_; }
  const std::string& name() const { return name_; }

 private:
  // An input as the layer sees it, and the shape of the output.
  struct Work {
    std::int64_t batch;
    Size3 places;
    TensorShape output;
  };

  Work plan(const TensorShape& input) const {
    Work work = linear_ ? plan_linear(input) : plan_convolution(input);
    const std::string problem = find_problem(geometry_, work.batch, work.places);
    if (!problem.empty()) throw Problem(problem);
    if (!linear_) {
      const Size3 places = output_size(geometry_, work.places);
      std::copy(places.end() - axes_, places.end(), work.output.sizes.begin() + 2);
    }
    return work;
  }

  // How many of the elements along an axis hold that many channels.
  static std::int64_t elements(std::int64_t channels, bool words) {
    return words ? words_for(channels) : channels;
  }

  Work plan_linear(const TensorShape& input) const {
    const std::int64_t channels = elements(geometry_.channels, words_.taken);
    if (input.rank < 1 || input.sizes[input.rank - 1] != channels) {
      throw Problem("the input has the shape " + input.describe() + "; its last dimension must be " +
                    std::to_string(channels) + ".");
    }
    Work work{1, {1, 1, 1}, input};
    for (std::size_t i = 0; i + 1 < input.rank; ++i) work.batch *= input.sizes[i];
    work.output.sizes[input.rank - 1] = elements(geometry_.filters, words_.given);
    return work;
  }

  Work plan_convolution(const TensorShape& input) const {
    const std::int64_t channels = elements(geometry_.groups * geometry_.channels, words_.taken);
    if (input.rank != axes_ + 2 || input.sizes[1] != channels) {
      throw Problem("the input has the shape " + input.describe() + "; it must have " +
                    std::to_string(axes_ + 2) + " dimensions and " + std::to_string(channels) + " channels.");
    }
    Work work{input.sizes[0], {1, 1, 1}, input};
    std::copy_n(input.sizes.begin() + 2, axes_, work.places.end() - axes_);
    work.output.sizes[1] = elements(geometry_.filters, words_.given);
    return work;
  }

  const Api* api_;
  std::string name_;
  Geometry geometry_;
  std::size_t axes_;
  bool linear_;
  Words words_;
  std::size_t residual_;  // position of the input; 0: none
  int threads_;
  Convolution convolution_;
  std::shared_ptr<ScratchPool> scratch_;
};

}  // namespace

Status* create_kernel(const Operator& op, const Api* api, const KernelInfo* info, void** kernel) noexcept {
  return guarded(api, [&] {
    named(Attributes(api, info).node_name(), [&](const std::string& name) {
      const Node node(op, api, info);
      *kernel = new Kernel(op, api, node, name);
    });
  });
}

Status* compute(void* kernel, KernelContext* context) noexcept {
  const Kernel& self = *static_cast<const Kernel*>(kernel);
  return guarded(self.api(), [&] { named(self.name(), [&](const std::string&) { self.compute(context); }); });
}

void destroy_kernel(void* kernel) noexcept { delete static_cast<Kernel*>(kernel); }

}  // namespace equibit::ort
