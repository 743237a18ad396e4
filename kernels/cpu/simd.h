// Sixteen float lanes over GCC vector extensions.
//
// A kernel that needs no instruction of one set alone is written once as an always-inlined template over the register width
// and compiled for three instruction sets (for finer choices see kernels/cpu/instruction_set.h):
//
//   struct AddKernel {
//     template <int kWidth>
//     [[gnu::always_inline]] static void run(const float* x, float* y, int64_t count);
//   };
//   run_on_best_isa<AddKernel>(x, y, count);
//
// Every function called from run() must be always-inlined too, or it is compiled for the portable set. Sums run in sixteen
// lanes whatever the register width, so the order of additions is a property of the source. The compiler may not fuse
// a·b + c (-ffp-contract=off): it would do so in one tile shape and not in another. add_product fuses by instruction.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>  // declares the builtins of fused_multiply_add
#endif

#include "kernels/cpu/instruction_set.h"
#include "tensor/dtype.h"

namespace skipper::cpu {

inline constexpr int kLanes = 16;

// The vector types of one register width.
template <int kWidth>
struct Registers;
template <>
struct Registers<16> {
  typedef float Floats __attribute__((vector_size(64)));
  typedef int32_t Ints __attribute__((vector_size(64)));
  typedef uint32_t Words __attribute__((vector_size(64)));
  typedef uint16_t Halves __attribute__((vector_size(32)));
};
template <>
struct Registers<8> {
  typedef float Floats __attribute__((vector_size(32)));
  typedef int32_t Ints __attribute__((vector_size(32)));
  typedef uint32_t Words __attribute__((vector_size(32)));
  typedef uint16_t Halves __attribute__((vector_size(16)));
};
template <>
struct Registers<4> {
  typedef float Floats __attribute__((vector_size(16)));
  typedef int32_t Ints __attribute__((vector_size(16)));
  typedef uint32_t Words __attribute__((vector_size(16)));
  typedef uint16_t Halves __attribute__((vector_size(8)));
};

// a · b + c with one rounding; two in the portable set, whose CPUs may lack the instruction. Builtins instead of the
// intrinsics around them: those could not be inlined into templates that name no instruction set.
template <int kWidth>
[[gnu::always_inline]] inline typename Registers<kWidth>::Floats fused_multiply_add(const typename Registers<kWidth>::Floats& a,
                                                                                   const typename Registers<kWidth>::Floats& b,
                                                                                   const typename Registers<kWidth>::Floats& c) {
#if defined(__x86_64__)
  if constexpr (kWidth == 16) return __builtin_ia32_vfmaddps512_mask(a, b, c, 0xffff, _MM_FROUND_CUR_DIRECTION);
  if constexpr (kWidth == 8) return __builtin_ia32_vfmaddps256(a, b, c);
#endif
  return a * b + c;
}

// Sixteen floats in 16 / kWidth registers of kWidth floats: 16 for AVX-512, 8 for AVX2, 4 for SSE2 and NEON.
template <int kWidth>
struct Lanes {
  static constexpr int kParts = kLanes / kWidth;
  using Part = typename Registers<kWidth>::Floats;
  using IntPart = typename Registers<kWidth>::Ints;
  using WordPart = typename Registers<kWidth>::Words;
  using HalfPart = typename Registers<kWidth>::Halves;

  Part part[kParts];

  [[gnu::always_inline]] static Lanes broadcast(float value) {
    Lanes result;
    for (int i = 0; i < kParts; ++i) result.part[i] = value - Part{};
    return result;
  }

  [[gnu::always_inline]] static Lanes zero() {
    Lanes result;
    for (int i = 0; i < kParts; ++i) result.part[i] = Part{};
    return result;
  }

  [[gnu::always_inline]] static Lanes load(const float* source) {
    Lanes result;
    for (int i = 0; i < kParts; ++i) __builtin_memcpy(&result.part[i], source + i * kWidth, sizeof(Part));
    return result;
  }

  // BF16 is the upper half of a float: widening is exact.
  [[gnu::always_inline]] static Lanes load(const bf16* source) {
    Lanes result;
    for (int i = 0; i < kParts; ++i) {
      HalfPart half;
      __builtin_memcpy(&half, source + i * kWidth, sizeof(half));
      result.part[i] = reinterpret_cast<Part>(__builtin_convertvector(half, WordPart) << 16);
    }
    return result;
  }

  // The first `count` < 16 lanes from memory, the others zero; reads nothing beyond them.
  template <typename T>
  [[gnu::always_inline]] static Lanes load_first(const T* source, int64_t count) {
    T padded[kLanes] = {};
    for (int64_t i = 0; i < count; ++i) padded[i] = source[i];
    return load(padded);
  }

  [[gnu::always_inline]] void store(float* target) const {
    for (int i = 0; i < kParts; ++i) __builtin_memcpy(target + i * kWidth, &part[i], sizeof(Part));
  }

  // Rounds to nearest even as the constructor of bf16 does; NaN stays NaN.
  [[gnu::always_inline]] void store(bf16* target) const {
    for (int i = 0; i < kParts; ++i) {
      const WordPart word = reinterpret_cast<WordPart>(part[i]);
      const WordPart rounded = word + 0x7fffu + ((word >> 16) & 1u);
      const WordPart kept = part[i] == part[i] ? rounded : word | 0x400000u;
      const HalfPart half = __builtin_convertvector(kept >> 16, HalfPart);
      __builtin_memcpy(static_cast<void*>(target + i * kWidth), &half, sizeof(half));
    }
  }

  template <typename T>
  [[gnu::always_inline]] void store_first(T* target, int64_t count) const {
    T all[kLanes];
    store(all);
    for (int64_t i = 0; i < count; ++i) target[i] = all[i];
  }

  // Zeroes all but the last `count` lanes; also removes their NaNs and infinities.
  [[gnu::always_inline]] Lanes keep_last(int64_t count) const {
    static constexpr int32_t kMask[2 * kLanes] = {0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
                                                  -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    Lanes result;
    for (int i = 0; i < kParts; ++i) {
      IntPart mask;
      __builtin_memcpy(&mask, kMask + count + i * kWidth, sizeof(mask));
      result.part[i] = reinterpret_cast<Part>(reinterpret_cast<IntPart>(part[i]) & mask);
    }
    return result;
  }

  [[gnu::always_inline]] Lanes operator+(const Lanes& other) const {
    Lanes result;
    for (int i = 0; i < kParts; ++i) result.part[i] = part[i] + other.part[i];
    return result;
  }
  [[gnu::always_inline]] Lanes operator-(const Lanes& other) const {
    Lanes result;
    for (int i = 0; i < kParts; ++i) result.part[i] = part[i] - other.part[i];
    return result;
  }
  [[gnu::always_inline]] Lanes operator*(const Lanes& other) const {
    Lanes result;
    for (int i = 0; i < kParts; ++i) result.part[i] = part[i] * other.part[i];
    return result;
  }
  [[gnu::always_inline]] Lanes operator/(const Lanes& other) const {
    Lanes result;
    for (int i = 0; i < kParts; ++i) result.part[i] = part[i] / other.part[i];
    return result;
  }
  // this + a · b.
  [[gnu::always_inline]] void add_product(const Lanes& a, const Lanes& b) {
    for (int i = 0; i < kParts; ++i) part[i] = fused_multiply_add<kWidth>(a.part[i], b.part[i], part[i]);
  }
  [[gnu::always_inline]] Lanes max(const Lanes& other) const {
    Lanes result;
    for (int i = 0; i < kParts; ++i) result.part[i] = part[i] > other.part[i] ? part[i] : other.part[i];
    return result;
  }
};

typedef float FourFloats __attribute__((vector_size(16)));

// Lanes i, i + 4, i + 8, i + 12 added as (i + (i + 8)) + ((i + 4) + (i + 12)): the upper half onto the lower, twice.
template <int kWidth>
[[gnu::always_inline]] inline FourFloats fold_to_four(const Lanes<kWidth>& x) {
  if constexpr (kWidth == 16) {
    const auto v = x.part[0];
    const auto eight = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                       __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
  } else if constexpr (kWidth == 8) {
    const auto eight = x.part[0] + x.part[1];
    return __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
  } else {
    return (x.part[0] + x.part[2]) + (x.part[1] + x.part[3]);
  }
}

// The fixed tree of every sum: sixteen lanes to four, then (0 + 2) + (1 + 3).
template <int kWidth>
[[gnu::always_inline]] inline float sum_of_lanes(const Lanes<kWidth>& x) {
  const FourFloats four = fold_to_four(x);
  return (four[0] + four[2]) + (four[1] + four[3]);
}

// sum_of_lanes of four vectors at once, by transposing; the same additions in the same order.
template <int kWidth>
[[gnu::always_inline]] inline FourFloats sums_of_lanes(const Lanes<kWidth> (&x)[4]) {
  const FourFloats a = fold_to_four(x[0]), b = fold_to_four(x[1]), c = fold_to_four(x[2]), d = fold_to_four(x[3]);
  const FourFloats ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const FourFloats cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

template <int kWidth>
[[gnu::always_inline]] inline float max_of_lanes(const Lanes<kWidth>& x) {
  float all[kLanes];
  x.store(all);
  float largest = all[0];
  for (int i = 1; i < kLanes; ++i) largest = all[i] > largest ? all[i] : largest;
  return largest;
}

// e^x within 2 units in the last place; exactly 0 below -85.9, infinity above 88.7, NaN stays NaN.
template <int kWidth>
[[gnu::always_inline]] inline Lanes<kWidth> exp(const Lanes<kWidth>& x) {
  using Part = typename Lanes<kWidth>::Part;
  using WordPart = typename Lanes<kWidth>::WordPart;
  constexpr float kSmallest = -85.9f, kLargest = 88.7228f;
  constexpr float kRound = 12582912.0f;  // 1.5 · 2^23: adding it leaves the rounded integer in the low mantissa bits
  Lanes<kWidth> result;
  for (int i = 0; i < Lanes<kWidth>::kParts; ++i) {
    const Part whole = x.part[i];
    const Part low = whole < kSmallest ? kSmallest - Part{} : whole;
    const Part clamped = low > kLargest ? kLargest - Part{} : low;
    const Part shifted = clamped * 1.44269504f + kRound;
    const Part n = shifted - kRound;
    const Part r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;  // ln 2 in two parts: n · the first is exact
    Part p = r * (1.0f / 5040) + (1.0f / 720);
    p = p * r + (1.0f / 120);
    p = p * r + (1.0f / 24);
    p = p * r + (1.0f / 6);
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    // Times 2^n in two factors, because 2^128 alone is no float.
    const WordPart half_up = reinterpret_cast<WordPart>(shifted) << 23;
    const Part scaled = reinterpret_cast<Part>(reinterpret_cast<WordPart>(p * 0.5f) + half_up) * 2.0f;
    const Part bounded = whole > kLargest ? __builtin_inff() - Part{} : scaled;
    const Part floored = whole < kSmallest ? Part{} : bounded;
    result.part[i] = whole != whole ? whole : floored;
  }
  return result;
}

template <typename Kernel, typename... Args>
void run_portable(const Args&... args) {
  Kernel::template run<4>(args...);
}

#if defined(__x86_64__)
template <typename Kernel, typename... Args>
[[gnu::target("avx2,fma")]] void run_avx2(const Args&... args) {
  Kernel::template run<8>(args...);
}

template <typename Kernel, typename... Args>
[[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,fma")]] void run_avx512(const Args&... args) {
  Kernel::template run<16>(args...);
}
#endif

template <typename Kernel, typename... Args>
void run_on_best_isa(const Args&... args) {
#if defined(__x86_64__)
  const Isa isa = best_isa();
  if (isa >= Isa::kAvx512) return run_avx512<Kernel>(args...);
  if (isa >= Isa::kAvx2) return run_avx2<Kernel>(args...);
#endif
  run_portable<Kernel>(args...);
}

}  // namespace skipper::cpu
