// With NEON: four places a step, the last ones by way of memory.

#include <arm_neon.h>

#include "finish.h"
#include "finish_levels.h"
#include "floats_neon.h"

namespace equibit {

namespace {

template <typename Value>
void copy(const Value* from, std::int64_t count, Value* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = from[i];
}

struct Neon : FloatsNeon {
  using Ints = int32x4_t;
  using Tail = std::int64_t;  // how many

  static Tail first(std::int64_t count) { return count < lanes ? count : lanes; }
  static Floats load(const float* from, Tail tail) {
    if (tail == lanes) return vld1q_f32(from);
    float values[lanes] = {};
    copy(from, tail, values);
    return vld1q_f32(values);
  }
  static Ints load(const std::int32_t* from, Tail tail) {
    if (tail == lanes) return vld1q_s32(from);
    std::int32_t values[lanes] = {};
    copy(from, tail, values);
    return vld1q_s32(values);
  }
  static void store(float* to, Floats values, Tail tail) {
    if (tail == lanes) return vst1q_f32(to, values);
    float stored[lanes];
    vst1q_f32(stored, values);
    copy(stored, tail, to);
  }
  static Ints ints(std::int32_t value) { return vdupq_n_s32(value); }
  using FloatsNeon::add;
  static Ints add(Ints a, Ints b) { return vaddq_s32(a, b); }
  static Ints sub(Ints a, Ints b) { return vsubq_s32(a, b); }
  static Floats float_of(Ints values) { return vcvtq_f32_s32(values); }

  static Ints lookup(const std::int32_t* table, std::int64_t, Ints at, Tail tail) {
    std::int32_t values[lanes];
    vst1q_s32(values, at);
    for (std::int64_t i = 0; i < tail; ++i) values[i] = table[values[i]];
    return vld1q_s32(values);
  }

  static Ints round(Floats v) { return vcvtnq_s32_f32(v); }  // to even; 0 for a NaN

  static void store_quads(std::int8_t* to, const Ints* quads, std::int64_t count) {
    const Ints byte = vdupq_n_s32(0xFF);
    Ints packed = vandq_s32(quads[0], byte);
    packed = vorrq_s32(packed, vshlq_n_s32(vandq_s32(quads[1], byte), 8));
    packed = vorrq_s32(packed, vshlq_n_s32(vandq_s32(quads[2], byte), 16));
    packed = vorrq_s32(packed, vshlq_n_s32(quads[3], 24));
    store(reinterpret_cast<float*>(to), vreinterpretq_f32_s32(packed), first(count));
  }

  // A comparison gives -1.
  static Ints mark(Ints marks, Ints values, Ints bounds) {
    return vsubq_s32(vaddq_s32(marks, marks), vreinterpretq_s32_u32(vcleq_s32(values, bounds)));
  }
  static std::uint32_t reached(Ints values, Ints bounds, std::int64_t count) {
    constexpr std::uint32_t bits[lanes] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(vcleq_s32(values, bounds), vld1q_u32(bits))) & ((1U << count) - 1);
  }
  static void store_words(Word* to, Ints low, Ints high, Word flips, Tail tail) {
    const uint64x2_t mask = vdupq_n_u64(flips);
    Word words[lanes];
    vst1q_u64(words, veorq_u64(vreinterpretq_u64_s32(vzip1q_s32(low, high)), mask));
    vst1q_u64(words + 2, veorq_u64(vreinterpretq_u64_s32(vzip2q_s32(low, high)), mask));
    copy(words, tail, to);
  }
};

}  // namespace

void fill_finish_neon(TileKernels& tiles) { fill_finish<Neon>(tiles); }

}  // namespace equibit
