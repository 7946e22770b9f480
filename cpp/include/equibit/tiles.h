// The kernels of a tile: the weights of a layer's filters against a panel of inputs, for a few places at
// once.
//
// A *panel* holds what a tile of `lanes` output places reads, [k][lanes]: row k is input k of every place.
// Its rows are in the order of a filter's bits (tap by tap, channels fastest); rows that are zero fill it up
// to whole bytes, quads or words. A place that does not exist has a lane too, whose sums nobody reads.
// Panels, sums and scratch memory lie on 64-byte borders; `lanes` is a multiple of 8 (int64 and int32 lanes
// of words) or of 16 (floats, bytes, quads), at most `most_lanes`.
//
// Filters come as *bytes*, [filters][bytes]: bit i of byte b is panel row 8 b + i, set for +1, and the bits
// of rows that are zero are clear. `lay_out_*` writes them in the order in which a kernel reads them; the
// layouts are the same at every level. Filters from a multiple of layout_block on are laid out on their own,
// at
// `*_size(first, bytes)` of the whole, so that threads can share the filters of a tile.
#pragma once

#include <cstdint>

#include "equibit/word.h"

namespace equibit {

constexpr std::int64_t most_lanes = 32;

constexpr std::int64_t layout_block = 32;

// Filters that the xnor kernel reads together; the last block is filled up with filters of zeros.
constexpr std::int64_t filter_block = 4;
constexpr std::int64_t blocks_for(std::int64_t filters) {
  return (filters + filter_block - 1) / filter_block;
}

// words [filters][words] -> out [blocks][words][filter_block], each word the XOR of its filter's words up to
// it: the panel of xnor_tile is folded in the same way.
void lay_out_words(const Word* rows, std::int64_t filters, std::int64_t words, Word* out);

// Filters that the table and vnni kernels read together; they write sums of whole blocks of them.
constexpr std::int64_t table_block = 8;

// Bytes [filters][bytes] -> the layout of the table kernels and of vnni_tile, table_size bytes.
std::int64_t table_size(std::int64_t filters, std::int64_t bytes);
void lay_out_table(const std::uint8_t* rows, std::int64_t filters, std::int64_t bytes, std::uint8_t* out);

// Bytes [filters][bytes] -> the layout of gemv_f32 and gemv_i8, gemv_size bytes.
std::int64_t gemv_size(std::int64_t filters, std::int64_t bytes);
void lay_out_gemv(const std::uint8_t* rows, std::int64_t filters, std::int64_t bytes, std::uint8_t* out);

// Bytes of scratch memory that one call of a table or vnni kernel may use, whatever the size.
constexpr std::int64_t table_scratch = 64 * 1024;

// Inputs that the tables of a gemv kernel take together, and how many such columns a filter of `bytes` bytes
// has.
constexpr std::int64_t gemv_inputs = 15;
constexpr std::int64_t gemv_columns(std::int64_t bytes) {
  return (8 * bytes + gemv_inputs - 1) / gemv_inputs;
}

// Columns that a gemv kernel finishes for all filters before it goes on, and bytes of the scratch memory of
// one call: three tables of 32 floats a column are the most that a level has.
constexpr std::int64_t gemv_most_columns = 512;
constexpr std::int64_t gemv_scratch(std::int64_t bytes) {
  return 384 * (gemv_columns(bytes) < gemv_most_columns ? gemv_columns(bytes) : gemv_most_columns);
}

// Bytes [filters][bytes] of k bits a filter -> floats [filters][k] for dense_tile_f32.
void lay_out_dense(const std::uint8_t* rows, std::int64_t filters, std::int64_t k, float* out);

// What happens to the sums of a tile on their way to the output, in float32, each step rounded:
//
//   y = activation(scale dot + offset total + bias + residual)
//
// Arrays hold one number per filter; null: the term is left out.
enum class Activation : std::int32_t { none, relu, prelu, hardtanh };

struct Epilogue {
  const float* scale;
  const float* offset;  // times `totals`, the sum of the inputs of each place
  const float* bias;
  Activation activation;
  const float* slope;  // prelu: y < 0 is multiplied by it
  float low, high;     // hardtanh
};

// Where the sums of some filters at `places` neighbouring places go. Pointers are those of the first filter
// and the first place; a stride is that from one filter to the next.
struct Results {
  std::int64_t filters;
  std::int64_t places;      // at most most_lanes
  std::int64_t sum_stride;  // of the sums
  const float* totals;      // [places], or null
  const float* residual;    // or null
  std::int64_t residual_stride;
  float* y;
  std::int64_t y_stride;
};

// dot = terms + factor * sum of `rows` rows of sums. A three-level filter is two rows of two levels, whose
// dot products have twice its dot product as their sum: both hold its signs where it is kept, and +1 and -1
// where it is pruned. (Differing bits: terms n and factor -2, or -1 for three levels; sums of integers: terms
// 0 and factor 1.)
struct Counts {
  std::int32_t terms;
  std::int32_t factor;
  std::int32_t rows;               // rows of sums that make a filter: 1 or 2
  const std::int32_t* correction;  // dot += correction[filter * correction_stride + classes[place]], or null
  const std::int32_t* classes;     // [places]
  std::int64_t correction_stride;
};

// Where signs of dot products go: bit f % 64 of words[f / 64 * word_stride + place] is whether filter f's is
// at least a threshold, or where its bit is set in `flips` whether it is less. A threshold t is kept as the
// bound Counts::terms - t of what the sums are taken from (the factor is -2, or -1 for two rows). Pointers
// are those of the first filter, a multiple of 64, and of the first place; the bits after the last filter are
// clear.
struct Signs {
  std::int64_t filters;
  std::int64_t places;         // at most most_lanes
  std::int64_t sum_stride;     // of the sums
  const std::int32_t* bounds;  // [filters]
  const Word* flips;           // [words_for(filters)]
  Word* words;
  std::int64_t word_stride;
};

// Some lanes of a panel row that read from one window of a plane. Lanes are taken `Windows::lanes` at a time,
// a vector; a vector has as many parts as it needs windows, one at least.
struct Part {
  std::int64_t
      offset;  // of the window, or where the lanes read neighbours: of what the vector's lane 0 would read
  std::int32_t vector;     // which one
  std::uint32_t lanes;     // of the vector, a bit each
  std::int32_t span;       // elements of the window, or 0: lanes read neighbours
  std::int32_t more;       // whether the vector has further parts
  std::int32_t index[16];  // in the window, of each lane
};

// How far apart the elements may lie that a vector picks at once; `lanes` 0: a level takes element by
// element.
struct Windows {
  std::int32_t lanes;
  std::int32_t elements;
};

// Which elements of a plane one row of a panel reads: lane l reads plane[source[l]], or what is outside the
// plane where source[l] is negative.
struct Gather {
  const std::int32_t* source;  // [lanes]
  std::int32_t lanes;
  const Part* parts;
  std::int32_t part_count;
};

// Rows of taps that read the same panel. The weights of row r are bytes r * bytes .. (r + 1) * bytes - 1 of a
// filter, and sum[filter * stride + r * step + lane] is where their sums belong.
struct TapRows {
  std::int64_t rows;
  std::int64_t stride;
  std::int64_t step;
};

// What a tap of a tile reads of a plane: a row of a panel, from `offset` on.
struct Tap {
  Gather gather;
  std::int64_t offset;
};

// Neighbouring groups of few channels and few filters, as the kernel that takes no panel reads them.
struct Grouped {
  std::int64_t groups;
  std::int64_t channels;       // of a group
  std::int64_t filters;        // of a group
  std::int64_t stride;         // from a channel to the next
  std::int64_t weight_stride;  // from a group to the next
  const float* weights;        // [group][filter][tap][channel]
};

// A pair of sizes along the two spatial axes.
struct Size2 {
  std::int64_t height;
  std::int64_t width;
};

// Columns of taps of a depthwise kernel.
constexpr std::int64_t most_depthwise_width = 32;

// Neighbouring maps of a depthwise convolution, whose stride across is 1 or 2; `padding` is that before the
// first row and column.
struct Depthwise {
  Size2 input, output, kernel, stride, dilation, padding;
  std::int64_t maps;           // of the output
  std::int64_t per_plane;      // how many of them read one map of the input
  std::int64_t weight_stride;  // from a map of the input to the next
  const float* weights;        // [map of the input][per_plane][kernel]
};

inline const float* weights_of(const Depthwise& layer, std::int64_t map) {
  return layer.weights + map / layer.per_plane * layer.weight_stride +
         map % layer.per_plane * layer.kernel.height * layer.kernel.width;
}

struct TileKernels {
  // panel[word][lane] = XOR of the words of that lane up to it, in place: what every panel of xnor_tile goes
  // through once, after it was gathered. panel [rows][lanes]; a word is a row.
  void (*fold_words)(Word* panel, std::int64_t rows, std::int64_t lanes);
  // The same where a word is `together` rows of `bits` bits, the first one lowest.
  void (*fold_few_bits)(Word* panel, std::int64_t rows, std::int64_t lanes, std::int64_t together,
                        std::int64_t bits);
  // out[filter][lane] = number of bits in which filter and lane differ. panel [words][lanes] as fold_words
  // leaves it, filters as lay_out_words writes them, out [filter_block * blocks][lanes].
  void (*xnor_tile)(const Word* panel, std::int64_t words, std::int64_t lanes, const Word* filters,
                    std::int64_t blocks, std::int32_t* out);
  // out[filter][lane] = sum of +-panel[k][lane]. panel [8 bytes][lanes]; filters as lay_out_table writes
  // them; out has room for whole blocks of filters.
  void (*table_tile_f32)(const float* panel, std::int64_t bytes, std::int64_t lanes,
                         const std::uint8_t* filters, std::int64_t count, void* scratch, float* out);
  // The same for rows of taps, added to `sums`.
  void (*table_rows_f32)(const float* panel, std::int64_t bytes, std::int64_t lanes,
                         const std::uint8_t* filters, std::int64_t count, const TapRows& to, void* scratch,
                         float* sums);
  // Both with quads, exact: panel [2 bytes][lanes][4], four neighbouring k together.
  void (*table_tile_i8)(const std::int8_t* panel, std::int64_t bytes, std::int64_t lanes,
                        const std::uint8_t* filters, std::int64_t count, void* scratch, std::int32_t* out);
  void (*table_rows_i8)(const std::int8_t* panel, std::int64_t bytes, std::int64_t lanes,
                        const std::uint8_t* filters, std::int64_t count, const TapRows& to, void* scratch,
                        std::int32_t* sums);
  // The same; the faster one for up to vnni_filters filters (0: the level has no instruction for it).
  void (*vnni_tile)(const std::int8_t* panel, std::int64_t bytes, std::int64_t lanes,
                    const std::uint8_t* filters, std::int64_t count, void* scratch, std::int32_t* out);
  std::int64_t vnni_filters;
  // y[filter] = sum of +-x[k]; x holds 8 bytes values, filters are as lay_out_gemv writes them.
  void (*gemv_f32)(const float* x, std::int64_t bytes, const std::uint8_t* filters, std::int64_t count,
                   void* scratch, float* y);
  void (*gemv_i8)(const std::int8_t* x, std::int64_t bytes, const std::uint8_t* filters, std::int64_t count,
                  void* scratch, std::int32_t* y);
  // y[filter] = number of bits in which x [words] and rows [count][words] differ.
  void (*gemv_xnor)(const Word* x, std::int64_t words, const Word* rows, std::int64_t count, std::int32_t* y);
  // out[filter][lane] = sum of weights[filter][k] panel[k][lane], in float32: panel [k][lanes].
  void (*dense_tile_f32)(const float* panel, std::int64_t k, std::int64_t lanes, const float* weights,
                         std::int64_t count, float* out);

  // out[group][filter][lane] = sum over taps and channels of weights times what the tap reads, in float32: as
  // dense_tile_f32, straight from the planes of many groups.
  void (*grouped_tile_f32)(const Tap* taps, std::int64_t count, const Grouped& layer, const float* planes,
                           float* out);

  // y[map] = epilogue(map's kernel over planes[map / per_plane]) in float32, with zeros outside; planes, y
  // and residual, or null, hold whole maps one after the other; y may be the residual.
  void (*depthwise_f32)(const Depthwise& layer, const Epilogue& epilogue, const float* planes,
                        const float* residual, float* y);

  // planes[c / 64][place], bit c % 64 = x[c][place] >= 0; x [channels][places].
  void (*pack_planes)(const float* x, std::int64_t channels, std::int64_t places, Word* planes);
  // planes[c / 4][place][c % 4] = round(x[c][place] / scale), half to even, clipped to -127 .. 127 (a NaN:
  // 0); the last quad of channels is filled up with zeros. x [channels][places].
  void (*quantize_planes)(const float* x, std::int64_t channels, std::int64_t places, float scale,
                          std::int8_t* planes);

  // out[i] = x[i] >= 0 ? 1 : -1, and the integers of quantize_planes as floats.
  void (*sign_f32)(const float* x, std::int64_t count, float* out);
  void (*quantize_f32)(const float* x, std::int64_t count, float scale, float* out);

  Windows windows_32, windows_64;
  // panel[plane][lane] = planes[plane * stride + source[lane]] for `count` planes, elements of 4 and 8 bytes.
  // Outside is zero, for words outside[plane].
  void (*gather_32)(const Gather& gather, const std::uint32_t* planes, std::int64_t stride,
                    std::int64_t count, std::uint32_t* panel);
  void (*gather_64)(const Gather& gather, const Word* planes, const Word* outside, std::int64_t stride,
                    std::int64_t count, Word* panel);

  // Sums [filters * counts.rows][sum_stride] to outputs; of `counts` the floats use `rows` only.
  void (*finish_f32)(const Epilogue& epilogue, const Results& results, const Counts& counts,
                     const float* sums);
  void (*finish_i32)(const Epilogue& epilogue, const Results& results, const Counts& counts,
                     const std::int32_t* sums);
  // The same for one place, whose outputs lie one after the other (y_stride 1, no correction).
  void (*finish_row_f32)(const Epilogue& epilogue, const Results& results, const Counts& counts,
                         const float* sums);
  void (*finish_row_i32)(const Epilogue& epilogue, const Results& results, const Counts& counts,
                         const std::int32_t* sums);

  // Sums [filters * counts.rows][sum_stride] of differing bits to signs, and the same for one place
  // (sum_stride 1, no correction).
  void (*sign_i32)(const Signs& signs, const Counts& counts, const std::int32_t* sums);
  void (*sign_row_i32)(const Signs& signs, const Counts& counts, const std::int32_t* sums);
};

}  // namespace equibit
