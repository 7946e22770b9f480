// numpy arrays as the kernels take them: checked rows of words in, fresh arrays out.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "equibit/kernels.h"

namespace equibit {

namespace nb = nanobind;

template <typename Value>
using Input = nb::ndarray<const Value, nb::c_contig, nb::device::cpu>;

template <typename Value>
using Matrix = nb::ndarray<const Value, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename Value>
using Output = nb::ndarray<nb::numpy, Value, nb::c_contig>;

constexpr std::int64_t word_bytes = sizeof(Word);

using Shape = std::vector<std::int64_t>;

Shape shape_of(const Input<std::uint8_t>& bytes);

// "(3, 16)"
std::string describe(const Shape& shape);

// Packed rows of `n` bits: bytes of shape (..., 8 * words_for(n)) whose padding bits are zero, as words.
// Bytes that do not lie on a word's border are copied.
class Rows {
 public:
  // Raises unless the bytes are such rows with `axes` axes; `name` is the argument's.
  Rows(const char* name, const Input<std::uint8_t>& bytes, std::size_t axes, std::int64_t n);

  Rows(const Rows&) = delete;  // words() may point into copy_
  Rows& operator=(const Rows&) = delete;

  const Word* words() const { return words_; }
  const Shape& shape() const { return shape_; }

 private:
  void check_padding(const char* name, std::int64_t n) const;

  Shape shape_;
  std::vector<Word> copy_;
  const Word* words_;
};

// Raises unless the mask has the shape of the signs and no sign bit is set where it is clear.
void check_mask(const Rows& signs, const Rows& mask);

// The elements of an array of that shape; raises where they cannot be counted in memory.
std::size_t element_count(const Shape& shape);

// A new numpy array over `values`, which it owns from now on.
template <typename Value, typename Stored>
Output<Value> make_array(std::unique_ptr<Stored[]> values, const Shape& shape) {
  Stored* data = values.release();
  nb::capsule owner(data, [](void* pointer) noexcept { delete[] static_cast<Stored*>(pointer); });
  const std::vector<std::size_t> sizes(shape.begin(), shape.end());
  return Output<Value>(reinterpret_cast<Value*>(data), sizes.size(), sizes.data(), owner);
}

}  // namespace equibit
