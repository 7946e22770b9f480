// What the kernels read of an input: its planes, made ready once for all tiles, then the panel of a tile.
#pragma once

#include "plan.h"

namespace equibit {

class Inputs {
 public:
  Inputs(const Plan& plan, const Cut& cut, const Arrays& arrays) : plan_(plan), cut_(cut), arrays_(arrays) {}

  // Planes of the scratch memory, one for each group of each image; 0: the kernels read the input itself.
  std::int64_t planes_to_make() const;
  void make_plane(std::int64_t index) const;

  const std::uint8_t* planes_of(std::int64_t image, std::int64_t group) const;

  // The panel of a tile, of planes from those of its first image on.
  void fill_panel(const Places& places, std::size_t tile, const std::uint8_t* planes,
                  std::uint8_t* panel) const;

  // The values of one row of a linear layer, with zeros after the last.
  void fill_row(const std::uint8_t* planes, std::uint8_t* panel) const;

  // What the weights of `count` groups of whole maps multiply: the input, or what is made of it in `made`.
  const float* maps(std::int64_t image, std::int64_t group, std::int64_t count, float* made) const;

 private:
  const Plan& plan_;
  const Cut& cut_;
  const Arrays& arrays_;
};

}  // namespace equibit
