// A layer as the kernels of one level run it.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "equibit/convolution.h"
#include "filters.h"
#include "places.h"

namespace equibit {

// The places of one input size, and what the sums of each class of places miss (empty: nothing).
struct Map {
  Places places;
  std::vector<std::int32_t> corrections;       // [filter][class]
  std::vector<std::int32_t> ones_corrections;  // [class], of a filter of +1
};

// How an input is cut into pieces of work. A tile's images are those of `map`, `repeats` times, then those of
// `rest`.
struct Cut {
  Family family;
  std::int64_t batch;
  Size3 input;
  std::shared_ptr<const Map> map;   // of a family of tiles
  std::shared_ptr<const Map> rest;  // null: no images are left
  std::int64_t repeats;
  std::int64_t chunk;   // rows of a piece, a multiple of layout_block, or those of whole words of signs
  std::int64_t chunks;  // of a group
  std::int64_t workers;
  std::int64_t groups;  // of a piece
  std::int64_t bands;   // that an image is cut into where rows of taps share a panel (shared_rows.h); else 0
};

class Plan {
 public:
  Plan(const Layer& layer, const Kernels& kernels);

  const Geometry& geometry() const { return geometry_; }
  const BinaryRows& rows() const { return rows_; }
  const TileKernels& tiles() const { return kernels_.tiles; }
  const Kernels& kernels() const { return kernels_; }
  InputKind input() const { return input_; }
  bool counts_integers() const {
    return input_ != InputKind::real && !grouped_;
  }  // else planes and sums are floats
  bool makes_planes() const { return input_ != InputKind::real && !takes_words_; }  // else it reads the input
  bool gives_words() const { return !bounds_.empty(); }
  const std::int32_t* bounds_from(std::int64_t filter) const { return bounds_.data() + filter; }
  const Word* flips_from(std::int64_t filter) const { return flips_.data() + filter / word_bits; }
  float input_scale() const { return input_scale_; }
  const Epilogue& epilogue() const { return epilogue_; }
  Epilogue epilogue_from(std::int64_t filter) const;
  const Counts& counts() const { return counts_; }
  const Word* outside() const { return outside_.data(); }  // what a tap outside the input reads, word by word

  Cut cut(std::int64_t batch, const Size3& input, int threads) const;
  const LaidOut& laid_out(Family family) const;

  std::int64_t image_elements(const Size3& input) const;  // of the planes

 private:
  Family choose(std::int64_t batch, const Size3& input) const;
  std::int64_t images_together(std::int64_t batch, const Size3& input) const;
  void set_workers(Cut& cut, std::int64_t tiles, int threads) const;
  double cut_rows(Cut& cut, std::int64_t places, double shared) const;
  bool shares_rows(const Cut& cut) const;
  void cut_bands(Cut& cut, int threads) const;
  void cut_groups(Cut& cut, std::int64_t tiles) const;
  void cut_maps(Cut& cut, int threads) const;
  std::shared_ptr<const Map> map_of(const Size3& input, std::int64_t images) const;
  std::shared_ptr<const Map> make_map(const Size3& input, std::int64_t images) const;
  void keep_numbers(const Layer& layer);
  void find_thresholds();

  bool is_grouped() const;
  bool is_depthwise(const Size3& input) const;
  bool has_words() const { return input_ == InputKind::sign && !grouped_; }

  Geometry geometry_;
  BinaryRows rows_;
  const Kernels& kernels_;
  InputKind input_;
  std::int32_t pad_value_;
  bool takes_words_;
  float input_scale_;
  bool grouped_;
  Epilogue epilogue_;  // points to the arrays below
  Counts counts_;
  std::vector<float> scale_, offset_, bias_, slope_;
  std::vector<Word> outside_;
  std::vector<std::int32_t> bounds_;  // of a layer that gives words, as `Signs` has them
  std::vector<Word> flips_;

  mutable std::array<std::once_flag, family_count> once_;
  mutable std::array<std::unique_ptr<LaidOut>, family_count> laid_out_;
  struct Known {
    Size3 input;
    std::int64_t images;
    std::shared_ptr<const Map> map;
  };
  mutable std::mutex mutex_;
  mutable std::vector<Known> known_;
};

// x and y may point to words (see Layer).
struct Arrays {
  const float* x;
  const float* residual;
  float* y;
  std::uint8_t* scratch;

  Word* words() const { return reinterpret_cast<Word*>(y); }
};

// Bytes of scratch memory that run_cut takes.
std::size_t scratch_of(const Plan& plan, const Cut& cut);

void run_cut(const Plan& plan, const Cut& cut, const Arrays& arrays, ParallelFor& parallel);

}  // namespace equibit
