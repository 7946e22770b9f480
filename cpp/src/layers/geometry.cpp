// Sizes of layers and what is wrong with them.

#include <cmath>

#include "equibit/convolution.h"
#include "places.h"

namespace equibit {

namespace {

constexpr std::int64_t largest_size = 1 << 20;    // of one axis, a kernel or a stride
constexpr std::int64_t largest_filter = 1 << 24;  // weights: a float counts them exactly
constexpr std::int64_t largest_image = 1 << 30;   // elements: the lanes of a tile reach over a few images

std::string wrong(const char* name, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (least <= value && value <= most) return "";
  return std::string(name) + " is " + std::to_string(value) + ". Allowed: " + std::to_string(least) + " to " +
         std::to_string(most) + ".";
}

std::string first_of(std::initializer_list<std::string> problems) {
  for (const std::string& problem : problems) {
    if (!problem.empty()) return problem;
  }
  return "";
}

std::string wrong_on_axis(const Geometry& geometry, std::size_t axis) {
  const std::int64_t most_extra = std::max(geometry.stride[axis], geometry.dilation[axis]) - 1;
  return first_of({
      wrong("a kernel size", geometry.kernel[axis], 1, largest_size),
      wrong("a stride", geometry.stride[axis], 1, largest_size),
      wrong("a dilation", geometry.dilation[axis], 1, largest_size),
      wrong("a padding", geometry.pads_begin[axis], 0, largest_size),
      wrong("a padding", geometry.pads_end[axis], 0, largest_size),
      wrong("an output padding", geometry.output_padding[axis], 0, geometry.transposed ? most_extra : 0),
  });
}

std::string wrong_filters(const Geometry& geometry) {
  if (geometry.filters % geometry.groups != 0) {
    return "groups = " + std::to_string(geometry.groups) + " does not divide " +
           std::to_string(geometry.filters) + " filters.";
  }
  const double weights =
      static_cast<double>(product(geometry.kernel)) * static_cast<double>(geometry.channels);
  if (weights > largest_filter) {
    return "a filter of " + std::to_string(static_cast<std::int64_t>(weights)) + " weights. Allowed: up to " +
           std::to_string(largest_filter) + ".";
  }
  return "";
}

std::string wrong_input(const Layer& layer) {
  if (layer.input == InputKind::sign) return wrong("pad_value", layer.pad_value, -1, 1);
  if (layer.input == InputKind::int8 && !(layer.input_scale > 0 && std::isfinite(layer.input_scale))) {
    return "the scale of the input is " + std::to_string(layer.input_scale) + ". Allowed: positive numbers.";
  }
  return "";
}

std::string wrong_words(const Layer& layer) {
  if (!layer.takes_words && !layer.gives_words) return "";
  if (layer.input != InputKind::sign) return "only a layer of signs takes or gives words.";
  if (layer.geometry.groups != 1) return "a layer that takes or gives words has one group.";
  if (layer.gives_words && (layer.offset != nullptr || layer.activation != Activation::none)) {
    return "a layer that gives words has neither an offset nor an activation.";
  }
  return "";
}

}  // namespace

std::string find_problem(const Layer& layer) {
  const Geometry& geometry = layer.geometry;
  const std::string sizes = first_of({
      wrong("groups", geometry.groups, 1, largest_filter),
      wrong("the number of channels of a group", geometry.channels, 1, largest_filter),
      wrong("the number of filters", geometry.filters, 1, largest_filter),
      wrong_on_axis(geometry, 0),
      wrong_on_axis(geometry, 1),
      wrong_on_axis(geometry, 2),
  });
  if (!sizes.empty()) return sizes;
  return first_of({wrong_filters(geometry), wrong_input(layer), wrong_words(layer)});
}

std::string find_problem(const Geometry& geometry, std::int64_t batch, const Size3& input) {
  double image = static_cast<double>(geometry.groups) * static_cast<double>(geometry.channels);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::string problem = wrong("a size of the input", input[axis], 1, largest_image);
    if (!problem.empty()) return problem;
    image *= static_cast<double>(input[axis]);
  }
  const Size3 output = output_size(geometry, input);
  double result = static_cast<double>(geometry.filters);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    if (output[axis] < 1) {
      return "an input of size " + std::to_string(input[axis]) +
             " along an axis leaves no place for a kernel of " + std::to_string(geometry.kernel[axis]) +
             " with dilation " + std::to_string(geometry.dilation[axis]) +
             (geometry.transposed ? " after cropping " : " and padding ") +
             std::to_string(geometry.pads_begin[axis]) + " and " + std::to_string(geometry.pads_end[axis]) +
             ".";
    }
    result *= static_cast<double>(output[axis]);
  }
  if (image > largest_image || result > largest_image)
    return "an image of the input or the output is too large.";
  return wrong("the batch", batch, 0, largest_image);
}

Size3 output_size(const Geometry& geometry, const Size3& input) {
  Size3 output{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::int64_t reach = geometry.dilation[axis] * (geometry.kernel[axis] - 1) + 1;
    const std::int64_t pads = geometry.pads_begin[axis] + geometry.pads_end[axis];
    const std::int64_t room = input[axis] + pads - reach;
    output[axis] = room < 0 ? 0 : room / geometry.stride[axis] + 1;
    if (geometry.transposed) {
      output[axis] = (input[axis] - 1) * geometry.stride[axis] - pads + reach + geometry.output_padding[axis];
    }
  }
  return output;
}

}  // namespace equibit
