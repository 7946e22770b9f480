#include "node.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>

#include "attributes.h"
#include "equibit/word.h"
#include "status.h"

namespace equibit::ort {

namespace {

using Shape = std::vector<std::int64_t>;

std::string describe(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + ")";
}

// Attributes and constant inputs of a node.
class Reader : public Attributes {
 public:
  Reader(const Operator& op, const Api* api, const KernelInfo* info)
      : Attributes(api, info), op_(op), api_(api), info_(info) {}

  // The elements of a constant input of that shape.
  template <typename T>
  const T* constant(const char* name, const Shape& wanted) const {
    const Value* value = constant_value(name);
    const Shape shape = shape_of(value);
    if (shape == wanted) return data<T>(value);
    throw Problem("the input " + std::string(name) + " has the shape " + describe(shape) + ", not " +
                  describe(wanted) + ".");
  }

  // One value per filter, from a constant input that has as many or one.
  std::vector<float> per_filter(const char* name, std::int64_t filters) const {
    const Value* value = constant_value(name);
    const Shape shape = shape_of(value);
    const std::int64_t count =
        std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    const float* values = data<float>(value);
    if (count == filters) return std::vector<float>(values, values + filters);
    if (count == 1) return std::vector<float>(static_cast<std::size_t>(filters), values[0]);
    throw Problem("the input " + std::string(name) + " has " + std::to_string(count) + " values for " +
                  std::to_string(filters) + " filters.");
  }

 private:
  const Value* constant_value(const char* name) const {
    int is_constant = 0;
    const Value* value = nullptr;
    call<GetConstantInput>(api_, info_, op_.position(name), &is_constant, &value);
    if (is_constant != 0 && value != nullptr) return value;
    throw Problem("the input " + std::string(name) +
                  " is not a constant of the file; only X and residual may be computed.");
  }

  Shape shape_of(const Value* value) const {
    TensorInfo* tensor = nullptr;
    call<GetTensorInfo>(api_, value, &tensor);
    std::size_t rank = 0;
    Status* status = get<GetRank>(api_)(tensor, &rank);
    Shape shape(status == nullptr ? rank : 0);
    if (status == nullptr) status = get<GetDimensions>(api_)(tensor, shape.data(), rank);
    get<ReleaseTensorInfo>(api_)(tensor);
    check(api_, status);
    return shape;
  }

  template <typename T>
  const T* data(const Value* value) const {
    void* elements = nullptr;
    call<GetTensorData>(api_, const_cast<Value*>(value), &elements);
    return static_cast<const T*>(elements);
  }

  const Operator& op_;
  const Api* api_;
  const KernelInfo* info_;
};

// The last 3 - axes sizes of a Size3 are those of the node, in its order.
Size3 sizes(const Shape& values, std::int64_t front, std::size_t first, std::size_t axes) {
  Size3 found{front, front, front};
  std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(first), axes,
              found.end() - static_cast<std::ptrdiff_t>(axes));
  return found;
}

// (filters, kernel..., channels per group), each at least 1 and their product small enough to count with.
Shape read_shape(const Reader& reader, Base base) {
  const Shape shape = reader.ints("shape");
  const std::size_t least = base == Base::linear ? 2 : 3, most = base == Base::linear ? 2 : 5;
  std::int64_t product = 1;
  for (const std::int64_t size : shape) {
    if (size < 1 || size > std::numeric_limits<std::int32_t>::max() / product) {
      throw Problem("the attribute shape is " + describe(shape) + ".");
    }
    product *= size;
  }
  if (shape.size() >= least && shape.size() <= most) return shape;
  throw Problem("the attribute shape " + describe(shape) + " has " + std::to_string(shape.size()) +
                " sizes, not " + std::to_string(least) + (most > least ? " to " + std::to_string(most) : "") +
                ".");
}

// How the rows of bits lie in the weight of a standard convolution; the function body uses it, we know it.
Shape row_order(Base base, std::size_t axes) {
  Shape order{0, static_cast<std::int64_t>(axes) + 1};
  if (base == Base::conv_transpose) order = {0, static_cast<std::int64_t>(axes) + 2, 1};
  const std::int64_t first = base == Base::conv_transpose ? 2 : 1;
  for (std::size_t axis = 0; axis < axes; ++axis) order.push_back(first + static_cast<std::int64_t>(axis));
  return order;
}

Geometry read_geometry(const Reader& reader, const Shape& shape, Base base) {
  Geometry geometry;
  geometry.filters = shape.front();
  geometry.channels = shape.back();
  if (base == Base::linear) return geometry;
  const std::size_t axes = shape.size() - 2;
  const Shape pads = reader.ints("pads", 2 * axes);
  const Shape order = row_order(base, axes);
  if (reader.ints("perm", order.size()) != order)
    throw Problem("the attribute perm is not " + describe(order) + ".");
  geometry.groups = reader.integer("group");
  geometry.kernel = sizes(shape, 1, 1, axes);
  geometry.stride = sizes(reader.ints("strides", axes), 1, 0, axes);
  geometry.dilation = sizes(reader.ints("dilations", axes), 1, 0, axes);
  geometry.pads_begin = sizes(pads, 0, 0, axes);
  geometry.pads_end = sizes(pads, 0, axes, axes);
  geometry.transposed = base == Base::conv_transpose;
  if (geometry.transposed) {
    geometry.output_padding = sizes(reader.ints("output_padding", axes), 0, 0, axes);
  }
  return geometry;
}

// A copy of rows of bits whose padding bits are clear: a function body does not read them either.
std::vector<std::uint8_t> clean(const std::uint8_t* rows, std::int64_t filters, std::int64_t bits) {
  const std::int64_t bytes = words_for(bits) * (word_bits / 8);
  std::vector<std::uint8_t> copy(rows, rows + filters * bytes);
  for (std::int64_t filter = 0; filter < filters; ++filter) {
    std::uint8_t* row = copy.data() + filter * bytes;
    if (bits % 8 != 0) row[bits / 8] &= static_cast<std::uint8_t>(low_bits(bits % 8));
    std::fill(row + (bits + 7) / 8, row + bytes, std::uint8_t{0});
  }
  return copy;
}

}  // namespace

Node::Node(const Operator& op, const Api* api, const KernelInfo* info) {
  const Reader reader(op, api, info);
  const Shape shape = read_shape(reader, op.base);
  axes = shape.size() - 2;
  layer.geometry = read_geometry(reader, shape, op.base);
  const std::int64_t filters = shape.front();
  const std::int64_t fan_in =
      std::accumulate(shape.begin() + 1, shape.end(), std::int64_t{1}, std::multiplies<>());
  const Shape rows{filters, words_for(fan_in) * (word_bits / 8)};
  bits_ = clean(reader.constant<std::uint8_t>("bits", rows), filters, fan_in);
  layer.bits = bits_.data();
  if (op.has("mask")) {
    mask_ = clean(reader.constant<std::uint8_t>("mask", rows), filters, fan_in);
    std::transform(bits_.begin(), bits_.end(), mask_.begin(), bits_.begin(), std::bit_and<>());
    layer.mask = mask_.data();
  }
  layer.scale = reader.constant<float>("scale", {filters});
  if (op.has("offset")) layer.offset = reader.constant<float>("offset", {filters});
  layer.bias = reader.constant<float>("bias", {filters});
  layer.input = op.input;
  layer.takes_words = op.words.taken;
  layer.gives_words = op.words.given;
  if (op.input == InputKind::int8) layer.input_scale = reader.number("input_scale");
  if (op.input == InputKind::sign && op.base == Base::conv) {
    const float value = reader.number("pad_value");
    if (value != -1 && value != 0 && value != 1) throw Problem("the attribute pad_value is not -1, 0 or 1.");
    layer.pad_value = static_cast<std::int32_t>(value);
  }
  layer.activation = op.activation;
  if (op.has("slope")) {
    slope_ = reader.per_filter("slope", filters);
    layer.slope = slope_.data();
  }
  if (op.activation == Activation::hardtanh) {
    layer.low = reader.number("low");
    layer.high = reader.number("high");
  }
  const std::string problem = find_problem(layer);
  if (!problem.empty()) throw Problem(problem);
}

}  // namespace equibit::ort
