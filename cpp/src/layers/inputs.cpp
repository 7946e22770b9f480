#include "inputs.h"

#include <cstring>

#include "scratch.h"

namespace equibit {

std::int64_t Inputs::planes_to_make() const {
  const bool makes = plan_.makes_planes() && cut_.family != Family::depthwise;
  return makes ? cut_.batch * plan_.rows().groups() : 0;
}

void Inputs::make_plane(std::int64_t index) const {
  const BinaryRows& rows = plan_.rows();
  const TileKernels& tiles = plan_.tiles();
  const std::int64_t places = product(cut_.input), channels = rows.channels();
  const float* x = arrays_.x + index * channels * places;
  if (cut_.family == Family::grouped) {
    float* floats = reinterpret_cast<float*>(arrays_.scratch) + index * channels * places;
    if (plan_.input() == InputKind::sign) return tiles.sign_f32(x, channels * places, floats);
    return tiles.quantize_f32(x, channels * places, plan_.input_scale(), floats);
  }
  if (plan_.input() == InputKind::int8) {
    auto* quads = reinterpret_cast<std::int8_t*>(arrays_.scratch);
    const std::int64_t size = 4 * rows.tap_rows(Family::vnni) * places;
    return tiles.quantize_planes(x, channels, places, plan_.input_scale(), quads + index * size);
  }
  auto* words = reinterpret_cast<Word*>(arrays_.scratch) + index * rows.tap_rows(Family::xnor) * places;
  if (places == 1) return plan_.kernels().pack_f32(x, 1, channels, words);
  tiles.pack_planes(x, channels, places, words);
}

const std::uint8_t* Inputs::planes_of(std::int64_t image, std::int64_t group) const {
  const std::int64_t unit = lane_bytes(cut_.family), elements = plan_.image_elements(cut_.input);
  const auto* planes =
      plan_.makes_planes() ? arrays_.scratch : reinterpret_cast<const std::uint8_t*>(arrays_.x);
  return planes + (image * elements + group * (elements / plan_.rows().groups())) * unit;
}

void Inputs::fill_panel(const Places& places, std::size_t tile, const std::uint8_t* planes,
                        std::uint8_t* panel) const {
  const BinaryRows& rows = plan_.rows();
  const TileKernels& tiles = plan_.tiles();
  const Family family = cut_.family;
  const std::int64_t lanes = places.tiles()[tile].lanes, tap_rows = rows.tap_rows(family);
  const std::int64_t stride = product(cut_.input), unit = lane_bytes(family);
  for (std::int64_t tap = 0; tap < rows.taps(); ++tap) {
    const Tap reading = places.reading(tile, tap);
    const std::uint8_t* from = planes + reading.offset * unit;
    std::uint8_t* to = panel + tap * tap_rows * lanes * unit;
    if (family == Family::xnor) {
      tiles.gather_64(reading.gather, reinterpret_cast<const Word*>(from), plan_.outside(), stride, tap_rows,
                      reinterpret_cast<Word*>(to));
    } else {
      tiles.gather_32(reading.gather, reinterpret_cast<const std::uint32_t*>(from), stride, tap_rows,
                      reinterpret_cast<std::uint32_t*>(to));
    }
  }
  const std::int64_t filled = rows.taps() * tap_rows, together = rows.taps_together(family);
  auto* words = reinterpret_cast<Word*>(panel);
  if (together > 1) return tiles.fold_few_bits(words, filled, lanes, together, rows.channels());
  if (family == Family::xnor) return tiles.fold_words(words, filled, lanes);
  const std::int64_t extra = ScratchLayout::padded_rows(rows, family) - filled;
  std::memset(panel + filled * lanes * unit, 0, static_cast<std::size_t>(extra * lanes * unit));
}

void Inputs::fill_row(const std::uint8_t* planes, std::uint8_t* panel) const {
  const std::int64_t rows = plan_.rows().panel_rows(cut_.family), unit = lane_bytes(cut_.family);
  const std::int64_t extra = ScratchLayout::padded_rows(plan_.rows(), cut_.family) - rows;
  std::memcpy(panel, planes, static_cast<std::size_t>(rows * unit));
  std::memset(panel + rows * unit, 0, static_cast<std::size_t>(extra * unit));
}

const float* Inputs::maps(std::int64_t image, std::int64_t group, std::int64_t count, float* made) const {
  const std::int64_t size = product(cut_.input);
  const float* x = arrays_.x + (image * plan_.rows().groups() + group) * size;
  if (plan_.input() == InputKind::real) return x;
  if (plan_.input() == InputKind::sign) {
    plan_.tiles().sign_f32(x, count * size, made);
  } else {
    plan_.tiles().quantize_f32(x, count * size, plan_.input_scale(), made);
  }
  return made;
}

}  // namespace equibit
