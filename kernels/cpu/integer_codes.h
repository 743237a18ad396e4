// Codes of four inputs × sixteen rows out of the chunks that kernels/packed_matrix.h lays out.
#pragma once

#include <cstdint>

#include "kernels/cpu/simd.h"
#include "kernels/weight_format.h"

namespace skipper::cpu {

// A quad is one vector [row 16][k 4] of unsigned codes; a chunk holds some quads in fewer vectors of 64 bytes.
struct ChunkShape {
  int num_bits;
  int num_quads;
  int num_vectors;
};

constexpr ChunkShape chunk_shape_of(WeightKind kind) {
  switch (kind) {
    case WeightKind::kInt4:
    case WeightKind::kInt4Asymmetric:
      return {4, 2, 1};
    case WeightKind::kInt3Asymmetric:
      return {3, 8, 3};
    case WeightKind::kInt2Asymmetric:
      return {2, 4, 1};
    default:
      return {8, 1, 1};
  }
}

inline constexpr int64_t kVectorBytes = 64;

constexpr bool has_zero_points(WeightKind kind) { return kind != WeightKind::kInt8 && kind != WeightKind::kInt4; }

template <int kWidth>
[[gnu::always_inline]] inline typename Registers<kWidth>::Words load_words(const uint8_t* source) {
  typename Registers<kWidth>::Words words;
  __builtin_memcpy(&words, source, sizeof(words));
  return words;
}

// Bytes as 32-bit integers. vpmovzxbd by name: GCC 12 takes vectors of bytes apart instead.
template <int kWidth>
[[gnu::always_inline]] inline typename Registers<kWidth>::Ints load_bytes(const uint8_t* source) {
#if defined(__x86_64__)
  if constexpr (kWidth >= 8) {
    typedef char Bytes __attribute__((vector_size(16)));
    Bytes bytes = {};
    __builtin_memcpy(&bytes, source, kWidth);
    if constexpr (kWidth == 16) return __builtin_ia32_pmovzxbd512_mask(bytes, Registers<16>::Ints{}, 0xffff);
    if constexpr (kWidth == 8) return __builtin_ia32_pmovzxbd256(bytes);
  }
#endif
  typedef uint8_t Bytes __attribute__((vector_size(kWidth)));
  Bytes bytes;
  __builtin_memcpy(&bytes, source, sizeof(bytes));
  return __builtin_convertvector(bytes, typename Registers<kWidth>::Ints);
}

// Part `part` of quad kQuad of a chunk. Bits that cross from a byte into its neighbour are masked away.
template <WeightKind kKind, int kWidth, int kQuad>
[[gnu::always_inline]] inline typename Registers<kWidth>::Words load_quad(const uint8_t* chunk, int part) {
  const uint8_t* vector = chunk + part * kWidth * 4;
  constexpr int kBits = chunk_shape_of(kKind).num_bits;
  if constexpr (kBits == 8) {
    return load_words<kWidth>(vector);
  } else if constexpr (kBits == 4) {
    return (load_words<kWidth>(vector) >> (4 * kQuad)) & 0x0f0f0f0fu;
  } else if constexpr (kBits == 2) {
    return (load_words<kWidth>(vector) >> (2 * kQuad)) & 0x03030303u;
  } else {
    const auto low = (load_words<kWidth>(vector + kQuad / 4 * kVectorBytes) >> (2 * (kQuad % 4))) & 0x03030303u;
    const auto plane = load_words<kWidth>(vector + 2 * kVectorBytes);
    if constexpr (kQuad <= 2) return low | ((plane << (2 - kQuad)) & 0x04040404u);
    return low | ((plane >> (kQuad - 2)) & 0x04040404u);
  }
}

}  // namespace skipper::cpu
