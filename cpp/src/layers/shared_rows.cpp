#include "shared_rows.h"

#include <algorithm>
#include <cstring>

#include "outputs.h"

namespace equibit {

namespace {

constexpr std::size_t down = 1, across = 2;  // axes
constexpr std::int64_t planes_together = 8;

std::int64_t reach_down(const Geometry& geometry) {
  return (geometry.kernel[down] - 1) * geometry.dilation[down];
}

class BandWorker {
 public:
  BandWorker(const Plan& plan, const Cut& cut, const Arrays& arrays, const Band& band,
             const std::uint8_t* planes, const BandMemory& memory)
      : plan_(plan),
        cut_(cut),
        arrays_(arrays),
        band_(band),
        planes_(planes),
        memory_(memory),
        geometry_(plan.geometry()),
        laid_out_(plan.laid_out(cut.family)),
        width_(output_size(geometry_, cut.input)[across]),
        length_(window_length(plan, cut.input)) {}

  void compute() {
    const Places& places = cut_.map->places;
    const std::int64_t reach = reach_down(geometry_) * width_, before = geometry_.pads_begin[down] * width_;
    const std::int64_t last = std::min(band_.last_place - before + reach, places.output_places());
    std::int64_t tile = std::max<std::int64_t>(band_.first_place - before, 0) / most_lanes;
    window_first_ = tile * most_lanes + before - reach;
    std::memset(memory_.window, 0, static_cast<std::size_t>(window_rows() * length_ * 4));
    for (; tile * most_lanes < last; ++tile) {
      fill_panel(static_cast<std::size_t>(tile));
      add_tile(places.tiles()[static_cast<std::size_t>(tile)].lanes);
      finish(at_);
      at_ += most_lanes;
      if (at_ == window_tiles * most_lanes) move_to_front(reach);
    }
    for (std::int64_t at = at_; at < at_ + reach; at += most_lanes) finish(at);
  }

 private:
  std::int64_t window_rows() const { return (band_.count + table_block - 1) / table_block * table_block; }

  // The panel of one row of taps, a few planes at a time: neighbouring taps read what is still in the cache,
  // where planes whose size is a power of two would drive each other out.
  void fill_panel(std::size_t tile) {
    const std::int64_t lanes = cut_.map->places.tiles()[tile].lanes;
    const std::int64_t tap_rows = plan_.rows().tap_rows(cut_.family);
    const std::int64_t size = product(cut_.input);
    for (std::int64_t plane = 0; plane < tap_rows; plane += planes_together) {
      const std::int64_t count = std::min(planes_together, tap_rows - plane);
      for (std::int64_t tap = 0; tap < geometry_.kernel[across]; ++tap) {
        const Tap reading = cut_.map->places.reading(tile, tap);
        const auto* from = reinterpret_cast<const std::uint32_t*>(planes_) + plane * size + reading.offset;
        auto* to = reinterpret_cast<std::uint32_t*>(memory_.panel) + (tap * tap_rows + plane) * lanes;
        plan_.tiles().gather_32(reading.gather, from, size, count, to);
      }
    }
  }

  void add_tile(std::int64_t lanes) {
    const std::int64_t bytes = plan_.rows().row_bytes(cut_.family) / geometry_.kernel[down];
    const std::uint8_t* weights = laid_out_.from(band_.group, band_.first);
    const std::int64_t start = at_ + reach_down(geometry_) * width_;
    const TapRows to{geometry_.kernel[down], length_, -geometry_.dilation[down] * width_};
    if (cut_.family == Family::table) {
      plan_.tiles().table_rows_f32(reinterpret_cast<const float*>(memory_.panel), bytes, lanes, weights,
                                   band_.count, to, memory_.tables,
                                   reinterpret_cast<float*>(memory_.window) + start);
    } else {
      plan_.tiles().table_rows_i8(reinterpret_cast<const std::int8_t*>(memory_.panel), bytes, lanes, weights,
                                  band_.count, to, memory_.tables,
                                  reinterpret_cast<std::int32_t*>(memory_.window) + start);
    }
  }

  // Finishes most_lanes places of the window from `at` on, those of them that are the band's.
  void finish(std::int64_t at) {
    const std::int64_t first = std::max(window_first_ + at, band_.first_place);
    const std::int64_t last = std::min(window_first_ + at + most_lanes, band_.last_place);
    if (first >= last) return;
    const std::int64_t per_filter = plan_.rows().per_filter();
    const std::int64_t filter = (band_.group * plan_.rows().in_group() + band_.first) / per_filter;
    const std::int64_t size = product(output_size(geometry_, cut_.input));
    write_outputs(plan_, arrays_, {band_.image, filter, band_.count / per_filter, first, last - first, size},
                  plan_.counts(), {memory_.window + 4 * (first - window_first_), length_, nullptr});
  }

  // The sums that later tiles add to, `reach` of each filter, and zeros after them.
  void move_to_front(std::int64_t reach) {
    for (std::int64_t row = 0; row < band_.count; ++row) {
      std::uint8_t* sums = memory_.window + 4 * row * length_;
      std::memmove(sums, sums + 4 * at_, static_cast<std::size_t>(4 * reach));
      std::memset(sums + 4 * reach, 0, static_cast<std::size_t>(4 * (length_ - reach)));
    }
    window_first_ += at_;
    at_ = 0;
  }

  const Plan& plan_;
  const Cut& cut_;
  const Arrays& arrays_;
  const Band& band_;
  const std::uint8_t* planes_;
  const BandMemory& memory_;
  const Geometry& geometry_;
  const LaidOut& laid_out_;
  const std::int64_t width_;       // of the output
  const std::int64_t length_;      // of the window
  std::int64_t window_first_ = 0;  // output place of the window's first sum
  std::int64_t at_ = 0;            // where in the window the tile's first sum is
};

}  // namespace

bool can_share_rows(const Plan& plan, Family family, const Size3& input) {
  const Geometry& geometry = plan.geometry();
  const std::int64_t tap_bits = plan.rows().tap_rows(family) * channels_per_row(family);
  const bool tables = family == Family::table || family == Family::byte_table;
  const bool flat =
      geometry.kernel[0] == 1 && input[0] == 1 && geometry.pads_begin[0] == 0 && geometry.pads_end[0] == 0;
  // No output row reads nothing but padding.
  const bool read = std::max(geometry.pads_begin[down], geometry.pads_end[down]) <= reach_down(geometry);
  return tables && flat && read && geometry.kernel[down] > 1 && geometry.stride[down] == 1 &&
         !geometry.transposed && geometry.kernel[across] * tap_bits % 8 == 0 &&
         plan.epilogue().offset == nullptr;
}

Geometry single_row_of(const Geometry& geometry) {
  Geometry row = geometry;
  row.kernel[down] = row.dilation[down] = 1;
  row.pads_begin[down] = row.pads_end[down] = 0;
  return row;
}

std::int64_t window_length(const Plan& plan, const Size3& input) {
  const Geometry& geometry = plan.geometry();
  const std::int64_t reach = reach_down(geometry) * output_size(geometry, input)[across];
  return (reach + 15) / 16 * 16 + window_tiles * most_lanes;
}

void compute_band(const Plan& plan, const Cut& cut, const Arrays& arrays, const Band& band,
                  const std::uint8_t* planes, const BandMemory& memory) {
  BandWorker(plan, cut, arrays, band, planes, memory).compute();
}

}  // namespace equibit
