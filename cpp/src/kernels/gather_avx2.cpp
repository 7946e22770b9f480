// Rows of a panel with AVX2: eight floats a step. Neighbours are one masked load, which reads nothing at the
// places that it leaves out; other lanes are picked from a window of one register. Words are taken one by
// one.

#include <immintrin.h>

#include "gather_levels.h"
#include "grouped.h"

namespace equibit {

namespace {

constexpr int lanes = 8;

__m256i mask_of(std::uint32_t bits) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), bit), bit);
}

__m256i load(const Part& part, __m256i mask, __m256i index, const std::uint32_t* plane) {
  const __m256i read = part.span == 0 ? mask : mask_of((1U << part.span) - 1);
  const __m256i values = _mm256_maskload_epi32(reinterpret_cast<const int*>(plane + part.offset), read);
  if (part.span == 0) return values;
  return _mm256_and_si256(_mm256_permutevar8x32_epi32(values, index), mask);
}

// One part of the row of every plane; the parts after a vector's first are added to what it wrote.
void gather_part(const Part& part, bool first_part, const std::uint32_t* planes, std::int64_t stride,
                 std::int64_t count, std::uint32_t* to, std::int64_t row) {
  const __m256i mask = mask_of(part.lanes);
  const __m256i index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(part.index));
  for (std::int64_t plane = 0; plane < count; ++plane) {
    __m256i values = load(part, mask, index, planes + plane * stride);
    auto* place = reinterpret_cast<__m256i*>(to + plane * row);
    if (!first_part) values = _mm256_or_si256(values, _mm256_load_si256(place));
    _mm256_store_si256(place, values);
  }
}

// Reads one part for grouped.h.
struct Direct {
  using Floats = __m256;
  static constexpr std::int32_t lanes = 8;

  struct Reader {
    __m256i index, read, lanes;
    bool window;
  };

  static Reader reader(const Part& part) {
    const __m256i mask = mask_of(part.lanes);
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(part.index)),
            part.span == 0 ? mask : mask_of((1U << part.span) - 1), mask, part.span != 0};
  }
  static Floats read(const Reader& reader, const float* from) {
    const Floats values = _mm256_maskload_ps(from, reader.read);
    if (!reader.window) return values;
    return _mm256_and_ps(_mm256_permutevar8x32_ps(values, reader.index), _mm256_castsi256_ps(reader.lanes));
  }
  static Floats zero() { return _mm256_setzero_ps(); }
  static Floats load(const float* from) { return _mm256_load_ps(from); }
  static void store(float* to, Floats values) { _mm256_store_ps(to, values); }
  static Floats broadcast(float value) { return _mm256_set1_ps(value); }
  static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(b, c, a); }
};

void gather_32(const Gather& gather, const std::uint32_t* planes, std::int64_t stride, std::int64_t count,
               std::uint32_t* panel) {
  bool first_part = true;
  for (std::int32_t i = 0; i < gather.part_count; ++i) {
    const Part& part = gather.parts[i];
    gather_part(part, first_part, planes, stride, count, panel + part.vector * lanes, gather.lanes);
    first_part = part.more == 0;
  }
}

}  // namespace

void fill_gather_avx2(TileKernels& tiles) {
  tiles.windows_32 = {lanes, lanes};
  tiles.gather_32 = gather_32;
  tiles.grouped_tile_f32 = grouped_tile<Direct>;
}

}  // namespace equibit
