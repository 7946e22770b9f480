#include "equibit/convolution.h"

#include "plan.h"

namespace equibit {

namespace {

const char* name_of(Family family) {
  switch (family) {
    case Family::xnor:
      return "words of signs, XOR and count, tile by tile";
    case Family::xnor_row:
      return "words of signs, XOR and count, row by row";
    case Family::table:
      return "floats, sums of four inputs from a table, tile by tile";
    case Family::dense:
      return "floats, a multiplication each: a group has too few filters for tables";
    case Family::grouped:
      return "floats, a multiplication each, group after group: a group has few channels and filters";
    case Family::depthwise:
      return "floats, a multiplication each, map by map: a group has one channel";
    case Family::float_row:
      return "floats, row by row";
    case Family::byte_table:
      return "int8, sums of four inputs from a table, tile by tile";
    case Family::vnni:
      return "int8, four multiplications at once, tile by tile";
    case Family::byte_row:
      return "int8, row by row";
  }
  return "";
}

}  // namespace

Convolution::Convolution(const Layer& layer, const Kernels& kernels)
    : plan_(std::make_unique<Plan>(layer, kernels)) {}

Convolution::~Convolution() = default;
Convolution::Convolution(Convolution&&) noexcept = default;
Convolution& Convolution::operator=(Convolution&&) noexcept = default;

std::size_t Convolution::scratch_size(std::int64_t batch, const Size3& input, int threads) const {
  const Cut cut = plan_->cut(batch, input, threads);
  plan_->laid_out(cut.family);
  return scratch_of(*plan_, cut);
}

void Convolution::run(const void* x, const float* residual, void* y, std::int64_t batch, const Size3& input,
                      void* scratch, ParallelFor& parallel) const {
  if (batch == 0) return;
  const Cut cut = plan_->cut(batch, input, parallel.threads());
  run_cut(
      *plan_, cut,
      {static_cast<const float*>(x), residual, static_cast<float*>(y), static_cast<std::uint8_t*>(scratch)},
      parallel);
}

std::string Convolution::explain(std::int64_t batch, const Size3& input) const {
  const Cut cut = plan_->cut(batch, input, 1);
  return std::string(name_of(cut.family)) + (cut.bands == 0 ? "" : ", shared by the rows of taps");
}

}  // namespace equibit
