// Which places of the input each output place reads: the same tables serve every stride, dilation, padding,
// number of axes, and transposed convolutions.
#pragma once

#include <cstdint>
#include <vector>

#include "equibit/convolution.h"

namespace equibit {

// The least multiple of `unit` that is at least `value`.
constexpr std::int64_t rounded_up(std::int64_t value, std::int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

inline std::int64_t product(const Size3& size) { return size[0] * size[1] * size[2]; }

// Output places are lanes of tiles: the places of `images` neighbouring images, one image after the other.
class Places {
 public:
  struct Shape {
    Size3 input;
    std::int64_t images;
    std::int64_t image_stride;  // elements from one image to the next in the planes
    std::int64_t step;          // lanes of a tile are a multiple of it
    Windows windows;            // of the kernel that gathers
  };

  struct Tile {
    std::int64_t first;  // lane, over all tiles
    std::int64_t used;   // lanes that are places
    std::int64_t lanes;
    bool inside;  // no place reads anything outside the input
  };

  Places(const Geometry& geometry, const Shape& shape);

  const std::vector<Tile>& tiles() const { return tiles_; }
  std::int64_t images() const { return shape_.images; }
  std::int64_t input_places() const { return product(shape_.input); }
  std::int64_t output_places() const { return output_places_; }

  // What a tile reads at a tap, of the planes of its first image.
  Tap reading(std::size_t tile, std::int64_t tap) const;

  // The class of each output place of an image: places of one class read outside the input at the same taps.
  // Class 0 reads nothing outside.
  const std::int32_t* classes() const { return classes_.data(); }
  std::int64_t class_count() const { return static_cast<std::int64_t>(outside_.size()); }
  bool outside(std::int64_t place_class, std::int64_t tap) const {
    return outside_[static_cast<std::size_t>(place_class)][static_cast<std::size_t>(tap)];
  }

 private:
  // What lanes read, relative to the first element that any of them reads.
  struct Pattern {
    std::vector<std::int32_t> source;
    std::vector<Part> parts;
  };
  struct Use {
    std::int32_t pattern;
    std::int64_t offset;
  };
  struct Interned;

  void find_classes(const std::vector<std::int64_t>& sources);
  void add_tile(std::int64_t first, const std::vector<std::int64_t>& sources, Interned& interned);
  Use use_of(const std::vector<std::int64_t>& source, Interned& interned);

  Shape shape_;
  std::int64_t taps_;
  std::int64_t output_places_;
  std::vector<Tile> tiles_;
  std::vector<Pattern> patterns_;
  std::vector<Use> uses_;  // [tile][tap]
  std::vector<std::int32_t> classes_;
  std::vector<std::vector<bool>> outside_;  // [class][tap]
};

}  // namespace equibit
