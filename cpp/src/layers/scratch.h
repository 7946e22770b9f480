// The scratch memory of one run of a layer.
#pragma once

#include <algorithm>

#include "equibit/tiles.h"
#include "plan.h"
#include "shared_rows.h"

namespace equibit {

constexpr std::int64_t line = 64;           // bytes of a cache line
constexpr std::int64_t sums_in_cache = 64;  // filters whose sums stay in the first cache; those of a word

// Where everything lies in the scratch memory: planes of all images, then the workers' own parts.
struct ScratchLayout {
  std::int64_t planes, panel, sums, totals, tables;  // bytes
  std::int64_t block;                                // rows that are computed, then finished, together

  ScratchLayout(const Plan& plan, const Cut& cut) {
    const BinaryRows& rows = plan.rows();
    if (cut.family == Family::depthwise) {
      keep_maps(plan, cut);
      return;
    }
    const std::int64_t unit = lane_bytes(cut.family);
    const std::int64_t lanes = is_single(cut.family) ? 1 : most_lanes;
    const std::int64_t panel_rows = std::max(
        padded_rows(rows, cut.family), rows.taps() * rows.tap_rows(cut.family));  // before they are joined
    planes = plan.makes_planes() ? rounded_up(cut.batch * plan.image_elements(cut.input) * unit, line) : 0;
    panel = rounded_up(panel_rows * lanes * unit, line);
    const std::int64_t together = plan.gives_words() ? sums_in_cache * rows.per_filter() : sums_in_cache;
    block = cut.family == Family::xnor ? std::min(together, cut.chunk) : cut.chunk * cut.groups;
    const std::int64_t places = cut.bands == 0 ? lanes : window_length(plan, cut.input);
    sums = rounded_up(rounded_up(block, table_block) * places * 4, line);
    totals = rounded_up(2 * filter_block * most_lanes * 4, line);
    tables = rounded_up(table_bytes(rows, cut.family), line);
  }

  // A worker makes the maps of its piece ready itself.
  void keep_maps(const Plan& plan, const Cut& cut) {
    planes = sums = totals = tables = block = 0;
    const std::int64_t values = plan.input() == InputKind::real ? 0 : cut.groups * product(cut.input);
    panel = rounded_up(values * static_cast<std::int64_t>(sizeof(float)), line);
  }

  static std::int64_t table_bytes(const BinaryRows& rows, Family family) {
    if (family == Family::grouped) return rows.taps() * static_cast<std::int64_t>(sizeof(Tap));
    if (family == Family::xnor || family == Family::xnor_row || family == Family::dense) return 0;
    return is_single(family) ? gemv_scratch(rows.row_bytes(family)) : table_scratch;
  }

  // Panel rows with those that fill up the last byte.
  static std::int64_t padded_rows(const BinaryRows& rows, Family family) {
    return 8 * rows.row_bytes(family) / channels_per_row(family);
  }

  std::int64_t worker() const { return panel + sums + totals + tables; }
};

}  // namespace equibit
