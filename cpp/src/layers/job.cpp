// One run of a layer: workers take planes of the input to make ready, then pieces of the output, until none
// is left.

#include <algorithm>
#include <atomic>
#include <thread>

#include "equibit/tiles.h"
#include "inputs.h"
#include "outputs.h"
#include "plan.h"
#include "scratch.h"
#include "shared_rows.h"

namespace equibit {

namespace {

// A tile of a group, or with a family of single rows an input of a group.
struct Place {
  const Map* map;
  std::int64_t image;  // the first of the map's
  std::int64_t group;
  std::int64_t tile;

  bool operator==(const Place& other) const {
    return image == other.image && group == other.group && tile == other.tile;
  }
};

struct Job {
  const Plan& plan;
  const Cut& cut;
  const Arrays& arrays;
  const ScratchLayout layout;
  const LaidOut& laid_out;
  std::int64_t planes;  // to make ready
  std::int64_t pieces;
  std::atomic<std::int64_t> next_plane{0}, ready_planes{0}, next_piece{0};
};

class Worker {
 public:
  Worker(Job& job, std::size_t index)
      : job_(job),
        inputs_(job.plan, job.cut, job.arrays),
        plan_(job.plan),
        tiles_(job.plan.tiles()),
        rows_(job.plan.rows()),
        family_(job.cut.family) {
    panel_ = job.arrays.scratch + job.layout.planes + static_cast<std::int64_t>(index) * job.layout.worker();
    sums_ = panel_ + job.layout.panel;
    totals_ = reinterpret_cast<float*>(sums_ + job.layout.sums);
    tables_ = sums_ + job.layout.sums + job.layout.totals;
  }

  void work() {
    make_planes();
    for (;;) {
      const std::int64_t piece = job_.next_piece.fetch_add(1, std::memory_order_relaxed);
      if (piece >= job_.pieces) return;
      compute(piece);
    }
  }

 private:
  template <typename Value>
  Value* panel() const {
    return reinterpret_cast<Value*>(panel_);
  }
  std::int32_t* counts() const { return reinterpret_cast<std::int32_t*>(sums_); }
  float* floats() const { return reinterpret_cast<float*>(sums_); }
  bool integer() const { return plan_.counts_integers(); }

  void make_planes();
  Place place_of(std::int64_t index) const;
  void compute(std::int64_t piece);
  void compute_band(std::int64_t piece);
  void compute_groups(std::int64_t piece);
  void compute_maps(std::int64_t piece);
  void compute_tile(const Place& place, std::int64_t first, std::int64_t count);
  void compute_row(const Place& place, std::int64_t first, std::int64_t count);
  void find_totals(const Place& place);
  void multiply(const std::uint8_t* weights, std::int64_t count, std::int64_t lanes);
  void multiply_row(const std::uint8_t* weights, std::int64_t count);
  void finish_tile(const Place& place, std::int64_t first, std::int64_t count);
  const std::uint8_t* planes_of(const Place& place) const {
    return inputs_.planes_of(place.image, place.group);
  }
  std::int64_t first_filter(const Place& place, std::int64_t row) const {
    return (place.group * rows_.in_group() + row) / rows_.per_filter();
  }
  std::int64_t tile_lanes(const Place& place) const {
    return place.map->places.tiles()[static_cast<std::size_t>(place.tile)].lanes;
  }

  Job& job_;
  const Inputs inputs_;
  const Plan& plan_;
  const TileKernels& tiles_;
  const BinaryRows& rows_;
  const Family family_;
  std::uint8_t* panel_;
  std::uint8_t* sums_;
  float* totals_;  // of the panel's lanes, where the layer has an offset
  std::uint8_t* tables_;
  Place held_{nullptr, -1, -1, -1};  // what the panel holds
};

// A worker that finds no plane left waits for those that others still make: they are at it.
void Worker::make_planes() {
  for (;;) {
    const std::int64_t index = job_.next_plane.fetch_add(1, std::memory_order_relaxed);
    if (index >= job_.planes) break;
    inputs_.make_plane(index);
    job_.ready_planes.fetch_add(1, std::memory_order_release);
  }
  while (job_.ready_planes.load(std::memory_order_acquire) < job_.planes) std::this_thread::yield();
}

void Worker::compute(std::int64_t piece) {
  if (job_.cut.bands != 0) return compute_band(piece);
  if (family_ == Family::grouped) return compute_groups(piece);
  if (family_ == Family::depthwise) return compute_maps(piece);
  const std::int64_t first = piece % job_.cut.chunks * job_.cut.chunk;
  const std::int64_t last = std::min(first + job_.cut.chunk, rows_.in_group());
  const Place place = place_of(piece / job_.cut.chunks);
  const bool single = is_single(family_);
  if (!(place == held_)) {
    if (single) {
      inputs_.fill_row(planes_of(place), panel_);
    } else {
      inputs_.fill_panel(place.map->places, static_cast<std::size_t>(place.tile), planes_of(place), panel_);
    }
    if (plan_.epilogue().offset != nullptr) find_totals(place);
    held_ = place;
  }
  for (std::int64_t row = first; row < last; row += job_.layout.block) {
    const std::int64_t count = std::min(job_.layout.block, last - row);
    single ? compute_row(place, row, count) : compute_tile(place, row, count);
  }
}

void Worker::compute_groups(std::int64_t piece) {
  const Place place = place_of(piece);
  Tap* taps = reinterpret_cast<Tap*>(tables_);
  for (std::int64_t tap = 0; tap < rows_.taps(); ++tap) {
    const Tap reading = place.map->places.reading(static_cast<std::size_t>(place.tile), tap);
    taps[tap] = {reading.gather, reading.offset};
  }
  const std::int64_t groups = std::min(job_.cut.groups, rows_.groups() - place.group);
  const Grouped layer{groups,
                      rows_.channels(),
                      rows_.in_group(),
                      product(job_.cut.input),
                      job_.laid_out.group_stride() / static_cast<std::int64_t>(sizeof(float)),
                      reinterpret_cast<const float*>(job_.laid_out.from(place.group, 0))};
  tiles_.grouped_tile_f32(taps, rows_.taps(), layer, reinterpret_cast<const float*>(planes_of(place)),
                          floats());
  finish_tile(place, 0, groups * rows_.in_group());
}

Size2 flat(const Size3& size) { return {size[1], size[2]}; }

void Worker::compute_maps(std::int64_t piece) {
  const Place place = place_of(piece);
  const Geometry& geometry = plan_.geometry();
  const std::int64_t groups = std::min(job_.cut.groups, rows_.groups() - place.group);
  const std::int64_t per_group = geometry.filters / geometry.groups, first = place.group * per_group;
  const Size3 output = output_size(geometry, job_.cut.input);
  const Depthwise layer{flat(job_.cut.input),
                        flat(output),
                        flat(geometry.kernel),
                        flat(geometry.stride),
                        flat(geometry.dilation),
                        flat(geometry.pads_begin),
                        groups * per_group,
                        per_group,
                        job_.laid_out.group_stride() / static_cast<std::int64_t>(sizeof(float)),
                        reinterpret_cast<const float*>(job_.laid_out.from(place.group, 0))};
  const std::int64_t at = (place.image * geometry.filters + first) * product(output);
  const float* residual = job_.arrays.residual;
  const float* maps = inputs_.maps(place.image, place.group, groups, panel<float>());
  tiles_.depthwise_f32(layer, plan_.epilogue_from(first), maps, residual == nullptr ? nullptr : residual + at,
                       job_.arrays.y + at);
}

// Bands have whole tiles, all about as many.
void Worker::compute_band(std::int64_t piece) {
  const Cut& cut = job_.cut;
  const std::int64_t first = piece % cut.chunks * cut.chunk, band = piece / cut.chunks % cut.bands;
  const std::int64_t index = piece / cut.chunks / cut.bands;
  const std::int64_t size = product(output_size(plan_.geometry(), cut.input));
  const std::int64_t tiles = (size + most_lanes - 1) / most_lanes;
  const auto border = [&](std::int64_t i) { return std::min(tiles * i / cut.bands * most_lanes, size); };
  const Band work{
      index / rows_.groups(), index % rows_.groups(), first, std::min(cut.chunk, rows_.in_group() - first),
      border(band),           border(band + 1)};
  const std::uint8_t* planes = inputs_.planes_of(work.image, work.group);
  equibit::compute_band(plan_, cut, job_.arrays, work, planes, {panel_, sums_, tables_});
}

Place Worker::place_of(std::int64_t index) const {
  const Cut& cut = job_.cut;
  const std::int64_t groups = (rows_.groups() + cut.groups - 1) / cut.groups;
  if (!has_tiles(family_)) return {nullptr, index / groups, index % groups * cut.groups, 0};
  const auto tiles = static_cast<std::int64_t>(cut.map->places.tiles().size());
  const std::int64_t repeat = std::min(index / (tiles * groups), cut.repeats);
  const Map* map = repeat < cut.repeats ? cut.map.get() : cut.rest.get();
  const std::int64_t rest = index - repeat * tiles * groups;
  const auto of_map = static_cast<std::int64_t>(map->places.tiles().size());
  return {map, repeat * cut.map->places.images(), rest / of_map * cut.groups, rest % of_map};
}

// A filter of +1 gives the sum of the inputs.
void Worker::find_totals(const Place& place) {
  const std::int64_t lanes = place.map == nullptr ? 1 : tile_lanes(place);
  if (place.map == nullptr) {
    multiply_row(job_.laid_out.ones(), 1);
  } else {
    multiply(job_.laid_out.ones(), 1, lanes);
  }
  const Counts& terms = plan_.counts();
  for (std::int64_t lane = 0; lane < lanes; ++lane) {
    totals_[lane] =
        integer() ? static_cast<float>(terms.terms + terms.factor * counts()[lane]) : floats()[lane];
  }
  if (place.map == nullptr || place.map->ones_corrections.empty()) return;
  const Places& places = place.map->places;
  const Places::Tile& tile = places.tiles()[static_cast<std::size_t>(place.tile)];
  for (std::int64_t lane = 0; lane < tile.used; ++lane) {
    const std::int64_t at = (tile.first + lane) % places.output_places();
    totals_[lane] +=
        static_cast<float>(place.map->ones_corrections[static_cast<std::size_t>(places.classes()[at])]);
  }
}

void Worker::compute_tile(const Place& place, std::int64_t first, std::int64_t count) {
  multiply(job_.laid_out.from(place.group, first), count, tile_lanes(place));
  finish_tile(place, first, count);
}

void Worker::multiply(const std::uint8_t* weights, std::int64_t count, std::int64_t lanes) {
  const std::int64_t bytes = rows_.row_bytes(family_);
  switch (family_) {
    case Family::xnor:
      return tiles_.xnor_tile(panel<Word>(), rows_.panel_rows(family_), lanes,
                              reinterpret_cast<const Word*>(weights), blocks_for(count), counts());
    case Family::table:
      return tiles_.table_tile_f32(panel<float>(), bytes, lanes, weights, count, tables_, floats());
    case Family::dense:
      return tiles_.dense_tile_f32(panel<float>(), rows_.n(), lanes, reinterpret_cast<const float*>(weights),
                                   count, floats());
    case Family::byte_table:
      return tiles_.table_tile_i8(panel<std::int8_t>(), bytes, lanes, weights, count, tables_, counts());
    default:
      return tiles_.vnni_tile(panel<std::int8_t>(), bytes, lanes, weights, count, tables_, counts());
  }
}

void Worker::multiply_row(const std::uint8_t* weights, std::int64_t count) {
  const std::int64_t bytes = rows_.row_bytes(family_);
  if (family_ == Family::xnor_row) {
    tiles_.gemv_xnor(panel<Word>(), bytes / 8, reinterpret_cast<const Word*>(weights), count, counts());
  } else if (family_ == Family::float_row) {
    tiles_.gemv_f32(panel<float>(), bytes, weights, count, tables_, floats());
  } else {
    tiles_.gemv_i8(panel<std::int8_t>(), bytes, weights, count, tables_, counts());
  }
}

void Worker::compute_row(const Place& place, std::int64_t first, std::int64_t count) {
  multiply_row(job_.laid_out.from(place.group, first), count);
  const std::int64_t filter = first_filter(place, first);
  write_outputs(plan_, job_.arrays, {place.image, filter, count / rows_.per_filter(), 0, 1, 1},
                plan_.counts(), {sums_, 1, totals_});
}

// Image by image of the tile.
void Worker::finish_tile(const Place& place, std::int64_t first, std::int64_t count) {
  const Places& places = place.map->places;
  const Places::Tile& tile = places.tiles()[static_cast<std::size_t>(place.tile)];
  Stretch stretch{0, first_filter(place, first), count / rows_.per_filter(), 0, 0, places.output_places()};
  Counts counts = plan_.counts();
  if (!tile.inside && !place.map->corrections.empty()) {
    counts.correction_stride = places.class_count();
    counts.correction = place.map->corrections.data() + stretch.filter * counts.correction_stride;
  }
  for (std::int64_t lane = 0; lane < tile.used; lane += stretch.places) {
    stretch.image = place.image + (tile.first + lane) / stretch.size;
    stretch.place = (tile.first + lane) % stretch.size;
    stretch.places = std::min(stretch.size - stretch.place, tile.used - lane);
    counts.classes = places.classes() + stretch.place;
    write_outputs(plan_, job_.arrays, stretch, counts, {sums_ + 4 * lane, tile.lanes, totals_ + lane});
  }
}

std::int64_t count_pieces(const Plan& plan, const Cut& cut) {
  if (cut.bands != 0) return cut.batch * plan.rows().groups() * cut.bands * cut.chunks;
  std::int64_t places = cut.batch;
  if (has_tiles(cut.family)) {
    places = cut.repeats == 0 ? 0 : cut.repeats * static_cast<std::int64_t>(cut.map->places.tiles().size());
    if (cut.rest != nullptr) places += static_cast<std::int64_t>(cut.rest->places.tiles().size());
  }
  return places * ((plan.rows().groups() + cut.groups - 1) / cut.groups) * cut.chunks;
}

}  // namespace

std::size_t scratch_of(const Plan& plan, const Cut& cut) {
  const ScratchLayout layout(plan, cut);
  return static_cast<std::size_t>(layout.planes + cut.workers * layout.worker());
}

void run_cut(const Plan& plan, const Cut& cut, const Arrays& arrays, ParallelFor& parallel) {
  Job job{plan,
          cut,
          arrays,
          ScratchLayout(plan, cut),
          plan.laid_out(cut.family),
          Inputs(plan, cut, arrays).planes_to_make(),
          count_pieces(plan, cut)};
  const auto task = [](void* data, std::size_t index) { Worker(*static_cast<Job*>(data), index).work(); };
  if (cut.workers == 1) return task(&job, 0);
  parallel.run(static_cast<std::size_t>(cut.workers), task, &job);
}

}  // namespace equibit
