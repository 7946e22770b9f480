// Random layers at every level that this build contains and this CPU runs, against the plain loops: sums of
// signs and of int8 bit for bit, floats within rounding. Prints how many results were compared at which
// levels; the exit status is 1 where one differs. The tests build it for NEON and run it in an emulator.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "equibit/convolution.h"
#include "equibit/dispatch.h"

namespace {

using namespace equibit;

std::mt19937 generator(7);

int draw(int low, int high) {
  return low + static_cast<int>(generator() % static_cast<unsigned>(high - low));
}

std::vector<float> draw_floats(std::int64_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

Word draw_word() { return (Word{generator()} << 32) | generator(); }

std::int64_t places(const Size3& size) { return size[0] * size[1] * size[2]; }

// A layer with the arrays that it points to, and an input for it.
struct Case {
  Layer layer;
  std::vector<Word> bits, mask;
  std::vector<float> scale, offset, bias, slope, x, residual;
  Size3 input{1, 1, 1};
  std::int64_t batch;
  bool fits;

  Case() {
    draw_geometry();
    fits = find_problem(layer).empty() && find_problem(layer.geometry, batch, input).empty();
    if (!fits) return;
    draw_weights();
    draw_numbers();
  }

  std::int64_t outputs() const {
    return batch * layer.geometry.filters * places(output_size(layer.geometry, input));
  }

  void draw_geometry() {
    constexpr int channels[] = {1, 2, 3, 5, 8, 16, 33, 64, 65, 70}, filters[] = {1, 2, 3, 8, 17, 20, 33};
    Geometry& geometry = layer.geometry;
    const int axes = draw(0, 4);
    geometry.groups = axes == 0 ? 1 : draw(1, 4);
    geometry.channels = channels[draw(0, 10)];
    geometry.filters = geometry.groups * filters[draw(0, 7)];
    geometry.transposed = axes > 0 && draw(0, 4) == 0;
    for (std::size_t axis = static_cast<std::size_t>(3 - axes); axis < 3; ++axis) {
      geometry.kernel[axis] = draw(1, 4);
      geometry.stride[axis] = draw(1, 3);
      geometry.dilation[axis] = draw(1, 3);
      geometry.pads_begin[axis] = draw(0, 2);
      geometry.pads_end[axis] = draw(0, 2);
      input[axis] = draw(1, 9);
    }
    batch = axes == 0 ? draw(1, 40) : draw(1, 5);
  }

  void draw_weights() {
    const Geometry& geometry = layer.geometry;
    const std::int64_t n = places(geometry.kernel) * geometry.channels, words = words_for(n);
    const bool three = draw(0, 3) == 0;
    for (std::int64_t i = 0; i < geometry.filters * words; ++i) {
      const Word used = low_bits(std::min(word_bits, n - i % words * word_bits));
      mask.push_back(three ? draw_word() & used : used);
      bits.push_back(draw_word() & mask.back());
    }
    layer.bits = reinterpret_cast<const std::uint8_t*>(bits.data());
    if (three) layer.mask = reinterpret_cast<const std::uint8_t*>(mask.data());
  }

  void draw_numbers() {
    const std::int64_t filters = layer.geometry.filters;
    layer.input = static_cast<InputKind>(draw(0, 3));
    layer.pad_value = layer.input == InputKind::sign ? draw(-1, 2) : 0;
    layer.input_scale = 0.05F;
    layer.activation = static_cast<Activation>(draw(0, 4));
    scale = draw_floats(filters);
    offset = draw_floats(filters);
    bias = draw_floats(filters);
    slope = draw_floats(filters);
    layer.scale = scale.data();
    layer.slope = slope.data();
    if (layer.mask == nullptr && draw(0, 3) == 0) layer.offset = offset.data();
    if (draw(0, 2) == 0) layer.bias = bias.data();
    x = draw_floats(batch * layer.geometry.groups * layer.geometry.channels * places(input));
    if (draw(0, 2) == 0) residual = draw_floats(outputs());
    if (layer.input != InputKind::sign || layer.geometry.groups != 1 || layer.offset != nullptr) return;
    layer.gives_words = draw(0, 2) == 0;
    if (!layer.gives_words) return;
    layer.activation = Activation::none;
    residual.clear();
  }

  std::vector<float> run(const Level& level) const {
    const Convolution convolution(layer, kernels_of(level));
    Alone alone;
    const std::size_t size = convolution.scratch_size(batch, input, 1);
    const std::unique_ptr<void, decltype(&std::free)> scratch(std::aligned_alloc(64, (size + 127) / 64 * 64),
                                                              &std::free);
    std::vector<float> y(static_cast<std::size_t>(outputs()), NAN);
    std::vector<Word> words(static_cast<std::size_t>(outputs()));  // room enough
    void* results = layer.gives_words ? static_cast<void*>(words.data()) : y.data();
    convolution.run(x.data(), residual.empty() ? nullptr : residual.data(), results, batch, input,
                    scratch.get(), alone);
    if (!layer.gives_words) return y;
    y.clear();
    for (const Word word : words) {
      for (int part = 0; part < 64; part += 16) y.push_back(static_cast<float>(word >> part & 0xFFFF));
    }
    return y;
  }

  bool agree(const std::vector<float>& y, const std::vector<float>& plain) const {
    const double terms = static_cast<double>(places(layer.geometry.kernel) * layer.geometry.channels);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double room =
          layer.input == InputKind::real ? 6e-5 * std::sqrt(terms) * (1 + std::fabs(plain[i])) : 0;
      if (!(std::fabs(y[i] - plain[i]) <= room)) return false;
    }
    return true;
  }
};

}  // namespace

int main(int count, char** arguments) {
  const int cases = count > 1 ? std::atoi(arguments[1]) : 100;
  const Level& portable = *find_level("portable");
  std::set<const char*> ran;
  int compared = 0, wrong = 0;
  for (int i = 0; i < cases; ++i) {
    const Case one;
    if (!one.fits) continue;
    const std::vector<float> plain = one.run(portable);
    for (const Level& level : levels) {
      if (!runs_here(level) || &level == &portable) continue;
      const bool right = one.agree(one.run(level), plain);
      if (!right) std::printf("case %d differs at %s\n", i, level.name);
      wrong += !right;
      ++compared;
      ran.insert(level.name);
    }
  }
  std::printf("%d compared, %d differ:", compared, wrong);
  for (const char* name : ran) std::printf(" %s", name);
  std::printf("\n");
  return wrong == 0 ? 0 : 1;
}
