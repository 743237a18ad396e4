// Dot products of four codes of a weight row with four codes of activations, exact in 32 bits, by what each instruction set has.
//
// A dot takes quads of unsigned weight codes ([row 16][k 4], see integer_codes.h) in registers of kWidth rows, and the four
// signed activation codes of the same inputs as one or two words that every row meets:
//
//   bytes    one word per quad: codes 0, 1, 2, 3
//   widened  two words per quad, two 16-bit integers each: codes 0 and 2, then codes 1 and 3
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/simd.h"

namespace skipper::cpu {

template <int kWidth>
struct ByteRegisters {
  typedef char Bytes __attribute__((vector_size(4 * kWidth)));
  typedef short Shorts __attribute__((vector_size(4 * kWidth)));
};

// One word in every lane. An instruction by name where registers are scarce: GCC would gather the words of all rows in vectors
// of their own first and run out of registers.
template <int kWidth>
[[gnu::always_inline]] inline typename Registers<kWidth>::Ints broadcast_word(const uint32_t& word) {
  typename Registers<kWidth>::Ints result;
#if defined(__x86_64__)
  if constexpr (kWidth >= 8) {
    asm("vpbroadcastd %1, %0" : "=v"(result) : "m"(word));
    return result;
  }
#endif
  return static_cast<int32_t>(word) - typename Registers<kWidth>::Ints{};
}

#if defined(__x86_64__)
template <int kWidth>
[[gnu::always_inline]] inline typename Registers<kWidth>::Ints add_pairs_of_shorts(
    const typename ByteRegisters<kWidth>::Shorts& a, const typename ByteRegisters<kWidth>::Shorts& b) {
  if constexpr (kWidth == 16) {
    return __builtin_ia32_pmaddwd512_mask(a, b, Registers<16>::Ints{}, 0xffff);
  } else {
    return __builtin_ia32_pmaddwd256(a, b);
  }
}

template <int kWidth>
[[gnu::always_inline]] inline typename ByteRegisters<kWidth>::Shorts add_pairs_of_bytes(
    const typename ByteRegisters<kWidth>::Bytes& unsigned_bytes, const typename ByteRegisters<kWidth>::Bytes& signed_bytes) {
  if constexpr (kWidth == 16) {
    return __builtin_ia32_pmaddubsw512_mask(unsigned_bytes, signed_bytes, ByteRegisters<16>::Shorts{}, 0xffffffffu);
  } else {
    return __builtin_ia32_pmaddubsw256(unsigned_bytes, signed_bytes);
  }
}
#endif

// vpdpbusd: four products of bytes and a 32-bit sum in one instruction.
template <int kWidth>
struct VnniDot {
  using Ints = typename Registers<kWidth>::Ints;
  using Words = typename Registers<kWidth>::Words;
  static constexpr int kWordsPerQuad = 1;
  using Codes = Words;
  using Inputs = Ints;

  [[gnu::always_inline]] static Codes prepare(const Words& quad) { return quad; }
  [[gnu::always_inline]] static Inputs broadcast(const uint32_t* words, int64_t) { return broadcast_word<kWidth>(words[0]); }
  [[gnu::always_inline]] static void add(Ints& sum, const Codes& codes, const Inputs& inputs) {
#if defined(__x86_64__)
    if constexpr (kWidth == 16) sum = __builtin_ia32_vpdpbusd_v16si(sum, reinterpret_cast<Ints>(codes), inputs);
    if constexpr (kWidth == 8) sum = __builtin_ia32_vpdpbusd_v8si(sum, reinterpret_cast<Ints>(codes), inputs);
#endif
  }
};

// vpmaddubsw saturates at 16 bits: for codes of up to four bits only, 2 · 15 · 128 at most.
template <int kWidth>
struct SmallCodesDot {
  using Ints = typename Registers<kWidth>::Ints;
  using Words = typename Registers<kWidth>::Words;
  static constexpr int kWordsPerQuad = 1;
  using Codes = Words;
  using Inputs = Ints;

  [[gnu::always_inline]] static Codes prepare(const Words& quad) { return quad; }
  [[gnu::always_inline]] static Inputs broadcast(const uint32_t* words, int64_t) { return broadcast_word<kWidth>(words[0]); }
  [[gnu::always_inline]] static void add(Ints& sum, const Codes& codes, const Inputs& inputs) {
#if defined(__x86_64__)
    using Bytes = typename ByteRegisters<kWidth>::Bytes;
    const auto pairs = add_pairs_of_bytes<kWidth>(reinterpret_cast<Bytes>(codes), reinterpret_cast<Bytes>(inputs));
    sum += add_pairs_of_shorts<kWidth>(pairs, short{1} - typename ByteRegisters<kWidth>::Shorts{});
#endif
  }
};

// Codes of any size as 16-bit integers, the even and the odd inputs of a quad apart.
template <int kWidth>
struct WidenedDot {
  using Ints = typename Registers<kWidth>::Ints;
  using Words = typename Registers<kWidth>::Words;
  using Shorts = typename ByteRegisters<kWidth>::Shorts;
  static constexpr int kWordsPerQuad = 2;
  struct Codes {
    Words even, odd;
  };
  struct Inputs {
    Ints even, odd;
  };

  [[gnu::always_inline]] static Codes prepare(const Words& quad) { return {quad & 0x00ff00ffu, (quad >> 8) & 0x00ff00ffu}; }
  [[gnu::always_inline]] static Inputs broadcast(const uint32_t* words, int64_t stride) {
    return {broadcast_word<kWidth>(words[0]), broadcast_word<kWidth>(words[stride])};
  }
  [[gnu::always_inline]] static void add(Ints& sum, const Codes& codes, const Inputs& inputs) {
    sum += products(codes.even, inputs.even) + products(codes.odd, inputs.odd);
  }

 private:
  // A product of two codes fits into 16 bits: 255 · 128 at most.
  [[gnu::always_inline]] static Ints products(const Words& codes, const Ints& inputs) {
#if defined(__x86_64__)
    if constexpr (kWidth >= 8) {
      return add_pairs_of_shorts<kWidth>(reinterpret_cast<Shorts>(codes), reinterpret_cast<Shorts>(inputs));
    }
#endif
    const Ints pairs = reinterpret_cast<Ints>(reinterpret_cast<Shorts>(codes) * reinterpret_cast<Shorts>(inputs));
    return (reinterpret_cast<Ints>(reinterpret_cast<Words>(pairs) << 16) >> 16) + (pairs >> 16);
  }
};

constexpr bool has_vnni(Isa isa) { return isa == Isa::kAvx2Vnni || isa >= Isa::kAvx512Vnni; }

template <int kWidth, int kBits>
using DotWithoutVnni = std::conditional_t<(kWidth >= 8 && kBits <= 4), SmallCodesDot<kWidth>, WidenedDot<kWidth>>;

template <Isa kIsa, int kBits>
using IntegerDot = std::conditional_t<has_vnni(kIsa), VnniDot<register_width(kIsa)>, DotWithoutVnni<register_width(kIsa), kBits>>;

}  // namespace skipper::cpu
