// Sixteen 32-bit words, each one f32 or a pair of bf16, and the step of a dot product over them.
#pragma once

#include <type_traits>

#include "kernels/cpu/simd.h"

namespace skipper::cpu {

template <int kWidth>
struct LaneWords {
  static constexpr int kParts = kLanes / kWidth;
  using Part = typename Registers<kWidth>::Words;

  Part part[kParts];

  [[gnu::always_inline]] static LaneWords load(const uint32_t* source) {
    LaneWords result;
    for (int i = 0; i < kParts; ++i) __builtin_memcpy(&result.part[i], source + i * kWidth, sizeof(Part));
    return result;
  }

  [[gnu::always_inline]] static LaneWords broadcast_from(const uint32_t* source) {
    uint32_t word;
    __builtin_memcpy(&word, source, sizeof(word));
    LaneWords result;
    for (int i = 0; i < kParts; ++i) result.part[i] = word + Part{};
    return result;
  }

  [[gnu::always_inline]] LaneWords masked(uint32_t mask) const {
    LaneWords result;
    for (int i = 0; i < kParts; ++i) result.part[i] = part[i] & mask;
    return result;
  }
};

#if defined(__x86_64__)
#if __GNUC__ >= 13
typedef __bf16 BF16Pairs __attribute__((vector_size(64)));
typedef __bf16 BF16Lanes __attribute__((vector_size(32)));
#else
typedef short BF16Pairs __attribute__((vector_size(64)));
typedef short BF16Lanes __attribute__((vector_size(32)));
#endif
#endif

// sums += a · b, lane by lane: one product of words of f32; for pairs of bf16 the odd product first, then the even one.
template <Isa kIsa, typename T>
[[gnu::always_inline]] inline void add_word_products(Lanes<register_width(kIsa)>& sums,
                                                     const LaneWords<register_width(kIsa)>& a,
                                                     const LaneWords<register_width(kIsa)>& b) {
  constexpr int kWidth = register_width(kIsa);
  using Part = typename Lanes<kWidth>::Part;
  const auto floats = [](const auto& words) __attribute__((always_inline)) { return reinterpret_cast<Part>(words); };
  for (int i = 0; i < LaneWords<kWidth>::kParts; ++i) {
    auto& sum = sums.part[i];
    if constexpr (std::is_same_v<T, float>) {
      sum = fused_multiply_add<kWidth>(floats(a.part[i]), floats(b.part[i]), sum);
#if defined(__x86_64__)
    } else if constexpr (kIsa == Isa::kAvx512Bf16) {
      sum = __builtin_ia32_dpbf16ps_v16sf(sum, reinterpret_cast<BF16Pairs>(a.part[i]), reinterpret_cast<BF16Pairs>(b.part[i]));
#endif
    } else {
      constexpr uint32_t kOdd = 0xffff0000u;
      sum = fused_multiply_add<kWidth>(floats(a.part[i] & kOdd), floats(b.part[i] & kOdd), sum);
      sum = fused_multiply_add<kWidth>(floats(a.part[i] << 16), floats(b.part[i] << 16), sum);
    }
  }
}

// Sixteen floats rounded to T; to nearest, ties to even. NaN stays NaN.
template <Isa kIsa>
[[gnu::always_inline]] inline void store_rounded(const Lanes<register_width(kIsa)>& x, float* target) {
  x.store(target);
}

template <Isa kIsa>
[[gnu::always_inline]] inline void store_rounded(const Lanes<register_width(kIsa)>& x, bf16* target) {
  using V = Lanes<register_width(kIsa)>;
#if defined(__x86_64__)
  if constexpr (kIsa == Isa::kAvx512Bf16) {
    const auto halves = __builtin_ia32_cvtneps2bf16_v16sf(x.part[0]);
    __builtin_memcpy(&target->bits, &halves, sizeof(halves));
    return;
  }
#endif
  for (int i = 0; i < V::kParts; ++i) {
    const auto word = reinterpret_cast<typename V::WordPart>(x.part[i]);
    const auto rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
    const auto quiet = (word >> 16) | 0x40u;
    const auto halves = __builtin_convertvector((word & 0x7fffffffu) > 0x7f800000u ? quiet : rounded, typename V::HalfPart);
    __builtin_memcpy(&target[i * register_width(kIsa)].bits, &halves, sizeof(halves));
  }
}

}  // namespace skipper::cpu
