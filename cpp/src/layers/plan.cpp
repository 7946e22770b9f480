#include "plan.h"

#include <algorithm>

#include "shared_rows.h"

namespace equibit {

namespace {

constexpr std::size_t most_known_sizes = 16;
constexpr std::int64_t most_single_rows = 8;    // inputs of a linear layer that are taken one by one
constexpr std::int64_t fewest_table_rows = 10;  // filters of a group that pay for building the tables
constexpr double most_waste = 1.04;             // lanes over places
constexpr double shared_rows = 30;              // rows that cost as much as a panel and its tables
constexpr double cycles_of_a_thread = 40'000;   // of work that is worth waking a thread for

bool is_linear(const Geometry& geometry, const Size3& input) {
  const Size3 ones{1, 1, 1}, zeros{0, 0, 0};
  return input == ones && geometry.kernel == ones && geometry.pads_begin == zeros &&
         geometry.pads_end == zeros && geometry.output_padding == zeros;
}

}  // namespace

Plan::Plan(const Layer& layer, const Kernels& kernels)
    : geometry_(layer.geometry),
      rows_(layer),
      kernels_(kernels),
      input_(layer.input),
      pad_value_(layer.geometry.transposed ? 0 : layer.pad_value),
      takes_words_(layer.takes_words),
      input_scale_(layer.input_scale),
      grouped_(layer.offset == nullptr && is_grouped()),
      counts_{0, 1, static_cast<std::int32_t>(rows_.per_filter()), nullptr, nullptr, 0} {
  keep_numbers(layer);
  if (!has_words()) return;
  counts_.terms = static_cast<std::int32_t>(rows_.n());
  counts_.factor = rows_.per_filter() == 2 ? -1 : -2;
  for (std::int64_t channel = 0; channel < rows_.channels(); channel += word_bits) {
    const Word used = low_bits(std::min(word_bits, rows_.channels() - channel));
    outside_.push_back(pad_value_ > 0 ? used : 0);
  }
  if (layer.gives_words) find_thresholds();
}

// Searches the dot products -n ... n for those where the sign changes. Rounding keeps order, so it changes
// once at most, whatever the scale and the bias are; not a number has a sign of -1.
void Plan::find_thresholds() {
  flips_.assign(static_cast<std::size_t>(words_for(geometry_.filters)), 0);
  for (std::int64_t filter = 0; filter < geometry_.filters; ++filter) {
    const Epilogue epilogue = epilogue_from(filter);
    const bool falls = *epilogue.scale < 0;
    const auto reached = [&](std::int64_t dot) {
      const float product = static_cast<float>(dot) * *epilogue.scale;
      const float y = epilogue.bias == nullptr ? product : product + *epilogue.bias;
      return (y >= 0) != falls;
    };
    std::int64_t least = -rows_.n(), end = rows_.n() + 1;  // the smallest that reaches it is in least ... end
    while (least < end) {
      const std::int64_t middle = least + (end - least) / 2;
      (reached(middle) ? end : least) = middle + (reached(middle) ? 0 : 1);
    }
    bounds_.push_back(static_cast<std::int32_t>(counts_.terms - least));
    if (falls) flips_[static_cast<std::size_t>(filter / word_bits)] |= Word{1} << filter % word_bits;
  }
}

void Plan::keep_numbers(const Layer& layer) {
  const auto count = static_cast<std::size_t>(geometry_.filters);
  const auto keep = [count](std::vector<float>& kept, const float* values, float factor) -> const float* {
    if (values == nullptr) return nullptr;
    kept.assign(values, values + count);
    for (float& value : kept) value *= factor;
    return kept.data();
  };
  const float unit = input_ == InputKind::int8 ? input_scale_ : 1.0F;
  const float half = !has_words() && rows_.per_filter() == 2 ? 0.5F : 1.0F;
  epilogue_ = {keep(scale_, layer.scale, unit * half),
               keep(offset_, layer.offset, unit),
               keep(bias_, layer.bias, 1.0F),
               layer.activation,
               keep(slope_, layer.slope, 1.0F),
               layer.low,
               layer.high};
}

const LaidOut& Plan::laid_out(Family family) const {
  const auto index = static_cast<std::size_t>(family);
  std::call_once(once_[index], [&] { laid_out_[index] = std::make_unique<LaidOut>(rows_, family); });
  return *laid_out_[index];
}

std::int64_t Plan::image_elements(const Size3& input) const {
  const Family any = !counts_integers() ? Family::table : has_words() ? Family::xnor : Family::vnni;
  return geometry_.groups * rows_.tap_rows(any) * product(input);
}

// Groups of few channels and filters would leave most of a word, a quad or a table empty.
bool Plan::is_grouped() const {
  constexpr std::int64_t few = 4;
  if (geometry_.groups == 1 || rows_.in_group() >= fewest_table_rows) return false;
  return input_ == InputKind::real || (rows_.channels() <= few && pad_value_ == 0);
}

// Whether the kernel that takes whole maps can: in two dimensions.
bool Plan::is_depthwise(const Size3& input) const {
  const bool flat =
      input[0] == 1 && geometry_.kernel[0] == 1 && geometry_.pads_begin[0] == 0 && geometry_.pads_end[0] == 0;
  return rows_.channels() == 1 && flat && !geometry_.transposed && geometry_.stride[2] <= 2 &&
         geometry_.kernel[2] <= most_depthwise_width;
}

Family Plan::choose(std::int64_t batch, const Size3& input) const {
  if (grouped_) return is_depthwise(input) ? Family::depthwise : Family::grouped;
  const bool single = is_linear(geometry_, input) && batch <= most_single_rows;
  if (input_ == InputKind::sign) return single ? Family::xnor_row : Family::xnor;
  if (input_ == InputKind::int8) {
    if (single) return Family::byte_row;
    return rows_.in_group() <= tiles().vnni_filters ? Family::vnni : Family::byte_table;
  }
  if (rows_.in_group() < fewest_table_rows) return Family::dense;
  return single ? Family::float_row : Family::table;
}

// Images whose places share tiles: as many as fill the lanes.
std::int64_t Plan::images_together(std::int64_t batch, const Size3& input) const {
  const std::int64_t places = product(output_size(geometry_, input));
  const std::int64_t step = has_words() ? 8 : 16;
  const std::int64_t most = std::min({batch, most_lanes, INT32_MAX / image_elements(input)});
  for (std::int64_t images = 1; images < most; ++images) {
    const std::int64_t lanes = images * places;
    if (lanes >= most_lanes && rounded_up(lanes, step) <= most_waste * static_cast<double>(lanes))
      return images;
  }
  return std::max<std::int64_t>(most, 1);
}

Cut Plan::cut(std::int64_t batch, const Size3& input, int threads) const {
  Cut cut{choose(batch, input), batch, input, nullptr, nullptr, 0, 0, 0, 1, 1, 0};
  if (shares_rows(cut)) {
    cut_bands(cut, threads);
    return cut;
  }
  if (cut.family == Family::depthwise) {
    cut_maps(cut, threads);
    return cut;
  }
  std::int64_t tiles = batch;
  if (!is_single(cut.family) && batch > 0) {
    const std::int64_t images = images_together(batch, input);
    cut.map = map_of(input, images);
    cut.repeats = batch / images;
    tiles = cut.repeats * static_cast<std::int64_t>(cut.map->places.tiles().size());
    if (batch % images != 0) {
      cut.rest = map_of(input, batch % images);
      tiles += static_cast<std::int64_t>(cut.rest->places.tiles().size());
    }
  }
  set_workers(cut, tiles * geometry_.groups, threads);
  cut_rows(cut, tiles * geometry_.groups, shared_rows);
  if (grouped_) cut_groups(cut, tiles);
  return cut;
}

// Pieces of as many groups as the first cache has room for the sums of, or fewer for the threads.
void Plan::cut_groups(Cut& cut, std::int64_t tiles) const {
  constexpr std::int64_t most_rows = 64;
  cut.chunk = rows_.in_group();
  cut.chunks = 1;
  cut.groups = std::clamp<std::int64_t>(most_rows / rows_.in_group(), 1, geometry_.groups);
  while (cut.groups > 1 && tiles * (geometry_.groups / cut.groups) < 2 * cut.workers) cut.groups /= 2;
}

// Pieces of as many maps as the first cache holds, or fewer for the threads.
void Plan::cut_maps(Cut& cut, int threads) const {
  constexpr std::int64_t cached = 4096;          // values
  constexpr double multiplications_a_cycle = 8;  // measured, with all that belongs to it
  const double places = static_cast<double>(product(output_size(geometry_, cut.input)) * cut.batch);
  const double all = places * static_cast<double>(geometry_.filters * rows_.n()) / multiplications_a_cycle;
  cut.workers = std::clamp<std::int64_t>(static_cast<std::int64_t>(all / cycles_of_a_thread), 1, threads);
  cut.chunk = rows_.in_group();
  cut.chunks = 1;
  const std::int64_t most = std::max<std::int64_t>(cached / product(cut.input), 1);
  cut.groups = std::clamp<std::int64_t>(geometry_.groups / (4 * cut.workers), 1, most);
}

// Unless tiles of several images would leave fewer lanes empty.
bool Plan::shares_rows(const Cut& cut) const {
  return cut.batch > 0 && can_share_rows(*this, cut.family, cut.input) &&
         images_together(cut.batch, cut.input) == 1;
}

// Each thread gets a band of an image's rows, or else some of the filters of the whole. Bands overlap by the
// kernel's reach, filters share tables that cost about as much as 20 of them: what is cheaper.
void Plan::cut_bands(Cut& cut, int threads) const {
  constexpr double shared = 20;
  cut.map = map_of(cut.input, 0);
  cut.repeats = cut.batch;
  cut.bands = 1;
  const auto tiles = static_cast<std::int64_t>(cut.map->places.tiles().size());
  const std::int64_t images = cut.batch * geometry_.groups;
  const std::int64_t extra = (window_length(*this, cut.input) + most_lanes - 1) / most_lanes - window_tiles;
  set_workers(cut, tiles * images, threads);
  Cut banded = cut;
  banded.bands = cut.workers;
  const double whole = cut_rows(cut, images, shared) * static_cast<double>(tiles);
  const std::int64_t of_band = (tiles + cut.workers - 1) / cut.workers + extra;
  if (cut_rows(banded, images * cut.workers, shared) * static_cast<double>(of_band) < whole) cut = banded;
}

Epilogue Plan::epilogue_from(std::int64_t filter) const {
  Epilogue epilogue = epilogue_;
  for (const float** values : {&epilogue.scale, &epilogue.offset, &epilogue.bias, &epilogue.slope}) {
    if (*values != nullptr) *values += filter;
  }
  return epilogue;
}

// As many threads as have work that is worth waking them for.
void Plan::set_workers(Cut& cut, std::int64_t tiles, int threads) const {
  const double row = static_cast<double>(rows_.n()) * most_lanes / (cut.family == Family::xnor ? 256 : 40);
  const double all = row * static_cast<double>(tiles) * (static_cast<double>(rows_.in_group()) + shared_rows);
  cut.workers = std::clamp<std::int64_t>(static_cast<std::int64_t>(all / cycles_of_a_thread), 1, threads);
}

// Chooses how many pieces the rows of a group are cut into, at each of `places`: the rows are the cheaper the
// more of them share what costs as much as `shared` of them, but every thread should have something to do.
// Returns the cost in rows.
double Plan::cut_rows(Cut& cut, std::int64_t places, double shared) const {
  const std::int64_t unit = gives_words() ? word_bits * rows_.per_filter() : layout_block;
  double best = 0;
  for (std::int64_t chunks = 1; chunks <= 4 * cut.workers; chunks *= 2) {
    const std::int64_t chunk = rounded_up((rows_.in_group() + chunks - 1) / chunks, unit);
    const std::int64_t pieces = places * ((rows_.in_group() + chunk - 1) / chunk);
    const std::int64_t turns = (pieces + cut.workers - 1) / cut.workers;
    const double cost = static_cast<double>(turns) * (static_cast<double>(chunk) + shared);
    if (chunks > 1 && cost > 0.97 * best) continue;
    best = cost;
    cut.chunk = chunk;
  }
  cut.chunks = (rows_.in_group() + cut.chunk - 1) / cut.chunk;
  return best;
}

std::shared_ptr<const Map> Plan::map_of(const Size3& input, std::int64_t images) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Known& known : known_) {
    if (known.input == input && known.images == images) return known.map;
  }
  if (known_.size() == most_known_sizes) known_.erase(known_.begin());
  known_.push_back({input, images, make_map(input, images)});
  return known_.back().map;
}

std::shared_ptr<const Map> Plan::make_map(const Size3& input, std::int64_t images) const {
  const bool words = has_words();
  const Windows windows = words ? tiles().windows_64 : tiles().windows_32;
  const Geometry& geometry = images == 0 ? single_row_of(geometry_) : geometry_;
  auto map = std::make_shared<Map>(Map{Places(geometry, {input, std::max<std::int64_t>(images, 1),
                                                         image_elements(input), words ? 8 : 16, windows}),
                                       {},
                                       {}});
  const std::int64_t classes = map->places.class_count();
  if (!words || pad_value_ != 0 || classes == 1) return map;
  // Bits outside are read as -1 and should have been 0: what the weights there sum to is missing.
  const auto missing = [&](std::int64_t place_class, auto tap_sum) {
    std::int32_t sum = 0;
    for (std::int64_t tap = 0; tap < rows_.taps(); ++tap) {
      if (map->places.outside(place_class, tap)) sum += tap_sum(tap);
    }
    return sum;
  };
  const std::int64_t per_filter = rows_.per_filter();
  for (std::int64_t filter = 0; filter < geometry_.filters; ++filter) {
    for (std::int64_t place_class = 0; place_class < classes; ++place_class) {
      map->corrections.push_back(missing(place_class, [&](std::int64_t tap) {
        std::int32_t sum = 0;
        for (std::int64_t row = 0; row < per_filter; ++row)
          sum += rows_.tap_sum(filter * per_filter + row, tap);
        return sum / static_cast<std::int32_t>(per_filter);
      }));
    }
  }
  for (std::int64_t place_class = 0; place_class < classes; ++place_class) {
    map->ones_corrections.push_back(
        missing(place_class, [&](std::int64_t) { return static_cast<std::int32_t>(rows_.channels()); }));
  }
  return map;
}

}  // namespace equibit
