// 1W1A with NEON, which counts the bits of bytes.

#include <arm_neon.h>

#include "xnor.h"
#include "xnor_levels.h"

namespace equibit {

namespace {

struct Neon {
  using Vector = uint64x2_t;
  static constexpr std::int64_t lanes = 2;
  static constexpr int tile_vectors = 4;
  static constexpr int tile_filters = 2;

  static Vector zero() { return vdupq_n_u64(0); }
  static Vector load(const Word* place) { return vld1q_u64(place); }
  static Vector load_part(const Word* place, std::int64_t) {
    return vcombine_u64(vld1_u64(place), vdup_n_u64(0));
  }
  static Vector broadcast(const Word* place) { return vld1q_dup_u64(place); }
  static void store(Word* place, Vector words) { vst1q_u64(place, words); }
  // The low halves of the words.
  static void store(std::int32_t* place, Vector words) {
    vst1_s32(place, vreinterpret_s32_u32(vmovn_u64(words)));
  }

  static Vector differ(Vector a, Vector b) { return veorq_u64(a, b); }
  static Vector shift(Vector v, std::int64_t bits) { return vshlq_u64(v, vdupq_n_s64(bits)); }
  static Vector descents(Vector a, Vector b, Vector c) {
    const Vector after = vreinterpretq_u64_u32(vmvnq_u32(vreinterpretq_u32_u64(c)));
    return vbslq_u64(b, after, a);
  }
  static std::int64_t sum(Vector words) { return static_cast<std::int64_t>(vaddvq_u64(words)); }

  class Counter {
   public:
    static constexpr std::int64_t most_chunks = (255 / 8 - 4) / 2;  // each byte grows by 16 at most

    void clear() {
      bytes_ = vdupq_n_u8(0);
      sum_ = zero();
    }
    void add(Vector bits) { bytes_ = vaddq_u8(bytes_, count_bytes(bits)); }
    void add(Vector bits, Vector others) {
      add(bits);
      add(others);
    }
    void flush() {
      sum_ = vaddq_u64(sum_, sum_bytes(bytes_));
      bytes_ = vdupq_n_u8(0);
    }
    // Twice the bits, and those of `rest`.
    Vector total(Vector rest) const {
      const Vector bits = vaddq_u64(sum_, sum_bytes(bytes_));
      return vaddq_u64(vaddq_u64(bits, bits), sum_bytes(count_bytes(rest)));
    }

   private:
    static uint8x16_t count_bytes(Vector bits) { return vcntq_u8(vreinterpretq_u8_u64(bits)); }
    static Vector sum_bytes(uint8x16_t bytes) { return vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(bytes))); }

    uint8x16_t bytes_;
    Vector sum_;
  };

  using Marks = uint32x4_t;
  static constexpr std::int64_t floats = 4;

  static Word signs(const float* x) {
    const std::uint32_t bits[4] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(at_least_zero(x), vld1q_u32(bits)));
  }
  static Marks load_marks(const std::uint32_t* place) { return vld1q_u32(place); }
  static void store_marks(std::uint32_t* place, Marks marks) { vst1q_u32(place, marks); }
  static Marks mark(Marks marks, const float* x, std::uint32_t bit) {
    return vorrq_u32(marks, vandq_u32(at_least_zero(x), vdupq_n_u32(bit)));
  }
  static void join(Word* place, Marks low, Marks high) {
    store(place, vreinterpretq_u64_u32(vzip1q_u32(low, high)));
    store(place + lanes, vreinterpretq_u64_u32(vzip2q_u32(low, high)));
  }

 private:
  static uint32x4_t at_least_zero(const float* x) { return vcgezq_f32(vld1q_f32(x)); }
};

}  // namespace

void fill_xnor_neon(Kernels& kernels) { fill_xnor<Neon>(kernels); }

}  // namespace equibit
