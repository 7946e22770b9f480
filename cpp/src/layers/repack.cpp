#include "equibit/repack.h"

#include <algorithm>

namespace equibit {

Word read_bits(const Word* row, std::int64_t first, std::int64_t count) {
  const std::int64_t shift = first % word_bits;
  const Word* word = row + first / word_bits;
  Word bits = word[0] >> shift;
  if (shift + count > word_bits) bits |= word[1] << (word_bits - shift);
  return bits & low_bits(count);
}

void repack_filters(const Word* rows, std::int64_t filters, std::int64_t taps, std::int64_t channels,
                    Word* out) {
  const std::int64_t row_words = words_for(taps * channels);
  for (std::int64_t filter = 0; filter < filters; ++filter) {
    const Word* row = rows + filter * row_words;
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      for (std::int64_t channel = 0; channel < channels; channel += word_bits) {
        *out++ = read_bits(row, tap * channels + channel, std::min(word_bits, channels - channel));
      }
    }
  }
}

}  // namespace equibit
