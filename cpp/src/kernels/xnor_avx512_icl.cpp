// 1W1A with AVX-512 and VPOPCNTDQ.

#include "words_avx512.h"
#include "xnor.h"
#include "xnor_levels.h"

namespace equibit {

namespace {

struct Avx512Icl : Avx512Words {
  class Counter {
   public:
    static constexpr std::int64_t most_chunks = INT64_MAX;

    void clear() { sum_ = zero(); }
    void add(Vector bits) { sum_ = Avx512Words::add(sum_, _mm512_popcnt_epi64(bits)); }
    void add(Vector bits, Vector others) {
      add(bits);
      add(others);
    }
    void flush() {}
    Vector total(Vector rest) const {
      return Avx512Words::add(Avx512Words::add(sum_, sum_), _mm512_popcnt_epi64(rest));
    }

   private:
    Vector sum_;
  };
  static constexpr int tile_vectors = 2;
  static constexpr int tile_filters = 4;
};

}  // namespace

void fill_xnor_avx512_icl(Kernels& kernels) { fill_xnor<Avx512Icl>(kernels); }

}  // namespace equibit
