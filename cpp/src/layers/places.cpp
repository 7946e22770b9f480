#include "places.h"

#include <algorithm>
#include <map>

namespace equibit {

namespace {

// Input place that output place `out` reads at kernel tap `tap` of one axis, or -1.
std::int64_t source_on_axis(const Geometry& geometry, std::size_t axis, std::int64_t input, std::int64_t out,
                            std::int64_t tap) {
  const std::int64_t stride = geometry.stride[axis];
  const std::int64_t reach = tap * geometry.dilation[axis];
  std::int64_t place = out * stride + reach - geometry.pads_begin[axis];
  if (geometry.transposed) {
    const std::int64_t steps = out + geometry.pads_begin[axis] - reach;
    if (steps % stride != 0) return -1;
    place = steps / stride;
  }
  return 0 <= place && place < input ? place : -1;
}

// The place that an index counts, last axis fastest.
Size3 split(std::int64_t index, const Size3& size) {
  return {index / (size[1] * size[2]), index / size[2] % size[1], index % size[2]};
}

// [tap][output place] -> input place or -1.
std::vector<std::int64_t> sources_of(const Geometry& geometry, const Size3& input, const Size3& output) {
  std::vector<std::int64_t> sources;
  sources.reserve(static_cast<std::size_t>(product(geometry.kernel) * product(output)));
  for (std::int64_t tap = 0; tap < product(geometry.kernel); ++tap) {
    const Size3 taps = split(tap, geometry.kernel);
    for (std::int64_t place = 0; place < product(output); ++place) {
      const Size3 out = split(place, output);
      std::int64_t source = 0;
      bool inside = true;
      for (std::size_t axis = 0; axis < 3; ++axis) {
        const std::int64_t at = source_on_axis(geometry, axis, input[axis], out[axis], taps[axis]);
        inside = inside && at >= 0;
        source = source * input[axis] + at;
      }
      sources.push_back(inside ? source : -1);
    }
  }
  return sources;
}

// The lanes from `first` on that read neighbours, or that fit into one window that starts at the least source
// among them; lanes below `first` and those outside do not count.
Part part_of(const std::int32_t* source, std::int32_t lanes, std::int32_t first, const Windows& windows) {
  Part part{0, 0, 0, 0, 0, {}};
  std::int32_t least = source[first], most = source[first];
  bool neighbours = true;
  for (std::int32_t lane = first; lane < lanes; ++lane) {
    if (source[lane] < 0) continue;
    const std::int32_t low = std::min(least, source[lane]), high = std::max(most, source[lane]);
    const bool follows = neighbours && source[lane] - lane == source[first] - first;
    if (!follows && high - low >= windows.elements) break;
    neighbours = follows;
    least = low;
    most = high;
    part.lanes |= 1U << lane;
  }
  part.offset = neighbours ? source[first] - first : least;
  part.span = neighbours ? 0 : most + 1 - least;
  for (std::int32_t lane = first; lane < lanes; ++lane) {
    if (part.lanes >> lane & 1) part.index[lane] = source[lane] - least;
  }
  return part;
}

std::vector<Part> parts_of(const std::vector<std::int32_t>& source, const Windows& windows) {
  std::vector<Part> parts;
  if (windows.lanes == 0) return parts;
  const auto count = static_cast<std::int32_t>(source.size());
  for (std::int32_t at = 0; at < count; at += windows.lanes) {
    const std::size_t before = parts.size();
    for (std::int32_t lane = 0; lane < windows.lanes;) {
      if (source[static_cast<std::size_t>(at + lane)] < 0) {
        ++lane;
        continue;
      }
      parts.push_back(part_of(source.data() + at, windows.lanes, lane, windows));
      while (lane < windows.lanes &&
             (source[static_cast<std::size_t>(at + lane)] < 0 || parts.back().lanes >> lane & 1))
        ++lane;
    }
    if (parts.size() == before) parts.push_back({0, 0, 0, 0, 0, {}});
    for (std::size_t i = before; i < parts.size(); ++i) {
      parts[i].vector = at / windows.lanes;
      parts[i].more = i + 1 < parts.size();
    }
  }
  return parts;
}

}  // namespace

// The patterns there are, by their sources.
struct Places::Interned {
  std::map<std::vector<std::int32_t>, std::int32_t> indices;
};

Places::Places(const Geometry& geometry, const Shape& shape)
    : shape_(shape), taps_(product(geometry.kernel)) {
  const Size3 output = output_size(geometry, shape.input);
  output_places_ = product(output);
  const std::vector<std::int64_t> sources = sources_of(geometry, shape.input, output);
  find_classes(sources);
  Interned interned;
  const std::int64_t total = shape.images * output_places_;
  for (std::int64_t first = 0; first < total; first += most_lanes) add_tile(first, sources, interned);
}

void Places::find_classes(const std::vector<std::int64_t>& sources) {
  std::map<std::vector<bool>, std::int32_t> known;
  std::vector<bool> outside(static_cast<std::size_t>(taps_), false);
  known[outside] = 0;
  outside_.push_back(outside);
  for (std::int64_t place = 0; place < output_places_; ++place) {
    for (std::int64_t tap = 0; tap < taps_; ++tap) {
      outside[static_cast<std::size_t>(tap)] =
          sources[static_cast<std::size_t>(tap * output_places_ + place)] < 0;
    }
    const auto added = known.emplace(outside, static_cast<std::int32_t>(outside_.size()));
    if (added.second) outside_.push_back(outside);
    classes_.push_back(added.first->second);
  }
}

void Places::add_tile(std::int64_t first, const std::vector<std::int64_t>& sources, Interned& interned) {
  const std::int64_t used = std::min(most_lanes, shape_.images * output_places_ - first);
  const std::int64_t lanes = (used + shape_.step - 1) / shape_.step * shape_.step;
  Tile tile{first, used, lanes, true};
  std::vector<std::int64_t> source(static_cast<std::size_t>(lanes));
  for (std::int64_t tap = 0; tap < taps_; ++tap) {
    std::fill(source.begin(), source.end(), -1);
    for (std::int64_t lane = 0; lane < used; ++lane) {
      const std::int64_t image = (first + lane) / output_places_;
      const std::int64_t at =
          sources[static_cast<std::size_t>(tap * output_places_ + (first + lane) % output_places_)];
      tile.inside = tile.inside && at >= 0;
      if (at >= 0) source[static_cast<std::size_t>(lane)] = image * shape_.image_stride + at;
    }
    uses_.push_back(use_of(source, interned));
  }
  tiles_.push_back(tile);
}

Places::Use Places::use_of(const std::vector<std::int64_t>& source, Interned& interned) {
  std::int64_t least = INT64_MAX, most = -1;
  for (const std::int64_t at : source) {
    if (at >= 0) least = std::min(least, at);
    most = std::max(most, at);
  }
  const std::int64_t offset = most < 0 ? 0 : least;
  std::vector<std::int32_t> relative;
  for (const std::int64_t at : source)
    relative.push_back(at < 0 ? -1 : static_cast<std::int32_t>(at - offset));
  const auto added = interned.indices.emplace(relative, static_cast<std::int32_t>(patterns_.size()));
  if (added.second) patterns_.push_back({relative, parts_of(relative, shape_.windows)});
  return {added.first->second, offset};
}

Tap Places::reading(std::size_t tile, std::int64_t tap) const {
  const Use& use = uses_[tile * static_cast<std::size_t>(taps_) + static_cast<std::size_t>(tap)];
  const Pattern& pattern = patterns_[static_cast<std::size_t>(use.pattern)];
  const Gather gather{pattern.source.data(), static_cast<std::int32_t>(pattern.source.size()),
                      pattern.parts.data(), static_cast<std::int32_t>(pattern.parts.size())};
  return {gather, use.offset};
}

}  // namespace equibit
