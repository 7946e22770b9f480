// Rows of a panel with AVX-512: sixteen floats or eight words a step. Neighbours are one masked load, which
// reads nothing at the places that it leaves out; other lanes are picked from a window of two registers.

#include <immintrin.h>

#include "gather_levels.h"
#include "grouped.h"

namespace equibit {

namespace {

struct FloatLanes {
  using Element = std::uint32_t;
  using Mask = __mmask16;
  static constexpr int lanes = 16;

  static __m512i load(Mask mask, const Element* from) { return _mm512_maskz_loadu_epi32(mask, from); }
  static __m512i blend(__m512i rest, Mask mask, __m512i values) {
    return _mm512_mask_mov_epi32(rest, mask, values);
  }
  static __m512i all(const Element*) { return _mm512_setzero_si512(); }
  static __m512i pick(__m512i low, __m512i index, __m512i high) {
    return _mm512_permutex2var_epi32(low, index, high);
  }
  static __m512i index_of(const Part& part) { return _mm512_loadu_si512(part.index); }
};

struct WordLanes {
  using Element = Word;
  using Mask = __mmask8;
  static constexpr int lanes = 8;

  static __m512i load(Mask mask, const Element* from) { return _mm512_maskz_loadu_epi64(mask, from); }
  static __m512i blend(__m512i rest, Mask mask, __m512i values) {
    return _mm512_mask_mov_epi64(rest, mask, values);
  }
  static __m512i all(const Element* outside) { return _mm512_set1_epi64(static_cast<long long>(*outside)); }
  static __m512i pick(__m512i low, __m512i index, __m512i high) {
    return _mm512_permutex2var_epi64(low, index, high);
  }
  static __m512i index_of(const Part& part) {
    return _mm512_cvtepi32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(part.index)));
  }
};

template <typename Kind>
typename Kind::Mask first(std::int32_t count) {
  const std::uint32_t all = (std::uint32_t{1} << Kind::lanes) - 1;
  return static_cast<typename Kind::Mask>(count >= Kind::lanes ? all : count <= 0 ? 0 : (1U << count) - 1);
}

// One part of the row of every plane. The first part of a vector writes what is outside to the other lanes,
// the others leave them as they are.
template <typename Kind>
void gather_part(const Part& part, bool first_part, const typename Kind::Element* from,
                 const typename Kind::Element* outside, std::int64_t stride, std::int64_t count,
                 typename Kind::Element* to, std::int64_t lanes) {
  const auto mask = static_cast<typename Kind::Mask>(part.lanes);
  const auto low_mask = part.span == 0 ? mask : first<Kind>(part.span);
  const auto high_mask = first<Kind>(part.span - Kind::lanes);
  const __m512i index = Kind::index_of(part);
  for (std::int64_t plane = 0; plane < count; ++plane) {
    __m512i values = Kind::load(low_mask, from);
    if (part.span != 0) values = Kind::pick(values, index, Kind::load(high_mask, from + Kind::lanes));
    const __m512i rest = first_part ? Kind::all(outside) : _mm512_load_si512(to);
    _mm512_store_si512(to, Kind::blend(rest, mask, values));
    from += stride;
    to += lanes;
    if (outside != nullptr) ++outside;
  }
}

template <typename Kind>
void gather_planes(const Gather& gather, const typename Kind::Element* planes,
                   const typename Kind::Element* outside, std::int64_t stride, std::int64_t count,
                   typename Kind::Element* panel) {
  bool first_part = true;
  for (std::int32_t i = 0; i < gather.part_count; ++i) {
    const Part& part = gather.parts[i];
    gather_part<Kind>(part, first_part, planes + part.offset, outside, stride, count,
                      panel + part.vector * Kind::lanes, gather.lanes);
    first_part = part.more == 0;
  }
}

// Reads one part for grouped.h.
struct Direct {
  using Floats = __m512;
  static constexpr std::int32_t lanes = 16;

  struct Reader {
    __m512i index;
    __mmask16 low, high, lanes;
    bool window;
  };

  static Reader reader(const Part& part) {
    const auto mask = static_cast<__mmask16>(part.lanes);
    return {_mm512_loadu_si512(part.index), part.span == 0 ? mask : first<FloatLanes>(part.span),
            first<FloatLanes>(part.span - lanes), mask, part.span != 0};
  }
  static Floats read(const Reader& reader, const float* from) {
    const Floats low = _mm512_maskz_loadu_ps(reader.low, from);
    if (!reader.window) return low;
    const Floats high = _mm512_maskz_loadu_ps(reader.high, from + lanes);
    return _mm512_maskz_permutex2var_ps(reader.lanes, low, reader.index, high);
  }
  static Floats zero() { return _mm512_setzero_ps(); }
  static Floats load(const float* from) { return _mm512_load_ps(from); }
  static void store(float* to, Floats values) { _mm512_store_ps(to, values); }
  static Floats broadcast(float value) { return _mm512_set1_ps(value); }
  static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(b, c, a); }
};

void gather_32(const Gather& gather, const std::uint32_t* planes, std::int64_t stride, std::int64_t count,
               std::uint32_t* panel) {
  gather_planes<FloatLanes>(gather, planes, nullptr, stride, count, panel);
}

}  // namespace

void fill_gather_avx512(TileKernels& tiles) {
  tiles.windows_32 = {16, 32};
  tiles.windows_64 = {8, 16};
  tiles.gather_32 = gather_32;
  tiles.grouped_tile_f32 = grouped_tile<Direct>;
  tiles.gather_64 = gather_planes<WordLanes>;
}

}  // namespace equibit
