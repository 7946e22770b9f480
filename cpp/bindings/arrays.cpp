#include "arrays.h"

#include <cstring>

#include "errors.h"

namespace equibit {

namespace {

constexpr double largest_count = 1LL << 48;  // exact as a double

// All words of rows of that shape, whose last axis counts bytes.
std::int64_t count_words(const Shape& shape) {
  std::int64_t words = 1;
  for (const std::int64_t size : shape) words *= size;
  return words / word_bytes;
}

}  // namespace

Shape shape_of(const Input<std::uint8_t>& bytes) {
  Shape shape;
  for (std::size_t axis = 0; axis < bytes.ndim(); ++axis)
    shape.push_back(static_cast<std::int64_t>(bytes.shape(axis)));
  return shape;
}

std::string describe(const Shape& shape) {
  std::string text;
  for (const std::int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "(" + text + (shape.size() == 1 ? ",)" : ")");
}

std::size_t element_count(const Shape& shape) {
  double count = 1;
  for (const std::int64_t size : shape) count *= static_cast<double>(size);
  if (count > largest_count) raise_input_error("a result of shape " + describe(shape) + " is too large.");
  return static_cast<std::size_t>(count);
}

Rows::Rows(const char* name, const Input<std::uint8_t>& bytes, std::size_t axes, std::int64_t n)
    : shape_(shape_of(bytes)) {
  if (n < 0 || n > INT32_MAX) {
    raise_input_error("a row of " + std::to_string(n) + " bits. Allowed: 0 to " + std::to_string(INT32_MAX) +
                      ".");
  }
  if (shape_.size() != axes || shape_.back() != word_bytes * words_for(n)) {
    raise_input_error(std::string(name) + " has shape " + describe(shape_) +
                      "; needed: " + std::to_string(axes) + " axes, the last of " +
                      std::to_string(word_bytes * words_for(n)) + " bytes, which rows of " +
                      std::to_string(n) + " bits take.");
  }
  words_ = reinterpret_cast<const Word*>(bytes.data());
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(Word) != 0) {
    copy_.resize(static_cast<std::size_t>(count_words(shape_)));
    std::memcpy(copy_.data(), bytes.data(), bytes.nbytes());
    words_ = copy_.data();
  }
  check_padding(name, n);
}

void Rows::check_padding(const char* name, std::int64_t n) const {
  const std::int64_t used = n % word_bits;
  if (used == 0) return;
  const std::int64_t row_words = words_for(n);
  const std::int64_t rows = count_words(shape_) / row_words;
  for (std::int64_t row = 0; row < rows; ++row) {
    if (words_[row * row_words + row_words - 1] & ~low_bits(used)) {
      raise_format_error(std::string(name) + ": row " + std::to_string(row) + " has a bit set after its " +
                         std::to_string(n) + " bits; padding bits are zero.");
    }
  }
}

void check_mask(const Rows& signs, const Rows& mask) {
  if (signs.shape() != mask.shape()) {
    raise_input_error("w_bits has shape " + describe(signs.shape()) + " and w_mask " +
                      describe(mask.shape()) + "; they must agree.");
  }
  const std::int64_t words = count_words(signs.shape());
  for (std::int64_t i = 0; i < words; ++i) {
    if (signs.words()[i] & ~mask.words()[i]) {
      const std::int64_t row = i / (signs.shape().back() / word_bytes);
      raise_format_error("row " + std::to_string(row) +
                         " of w_bits has a bit set where its w_mask bit is 0; such a bit is zero.");
    }
  }
}

}  // namespace equibit
