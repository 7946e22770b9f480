// From the rows of a file to the layout the kernels read.
#pragma once

#include <cstdint>

#include "equibit/word.h"

namespace equibit {

// Bits first .. first + count - 1 of a row, count <= 64; they may straddle two words.
Word read_bits(const Word* row, std::int64_t first, std::int64_t count);

// A filter in a file is one row of taps * channels bits, channel fastest, with padding after the last bit
// only. The convolution reads each tap's channels from whole words, like a pixel's: out is
// [filters][taps][words_for(channels)].
void repack_filters(const Word* rows, std::int64_t filters, std::int64_t taps, std::int64_t channels,
                    Word* out);

}  // namespace equibit
