// A row of activations as signed 8-bit codes with one scale per group of the weights.
//
// scale = max |x| / 127 over the group, codes = x · (127 / max |x|) rounded to nearest even: |error| <= scale / 2 and no code
// is −128. A group that holds a NaN or an infinity gets the scale NaN, so that every product with it is NaN; one below
// kSmallestMaximum counts as zeros.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/tile_policy.h"

namespace skipper::cpu {

inline constexpr float kLargestCode = 127.0f;
// Below it the reciprocal overflows.
inline constexpr float kSmallestMaximum = 1e-36f;

template <typename Part, typename Operation>
[[gnu::always_inline]] inline int32_t fold_to_one(const Part& part, const Operation& operation) {
  Registers<4>::Ints four;
  if constexpr (sizeof(Part) == 32) {
    four = operation(__builtin_shufflevector(part, part, 0, 1, 2, 3), __builtin_shufflevector(part, part, 4, 5, 6, 7));
  } else {
    four = part;
  }
  const auto two = operation(four, __builtin_shufflevector(four, four, 2, 3, 2, 3));
  return operation(two, __builtin_shufflevector(two, two, 1, 1, 1, 1))[0];
}

// All lanes of all parts reduced to one, by halves.
template <int kWidth, typename Operation>
[[gnu::always_inline]] inline int32_t fold_lanes(const typename Lanes<kWidth>::IntPart* parts, const Operation& operation) {
  auto part = parts[0];
  for (int i = 1; i < Lanes<kWidth>::kParts; ++i) part = operation(part, parts[i]);
  if constexpr (kWidth == 16) {
    const Registers<8>::Ints halves[] = {__builtin_shufflevector(part, part, 0, 1, 2, 3, 4, 5, 6, 7),
                                         __builtin_shufflevector(part, part, 8, 9, 10, 11, 12, 13, 14, 15)};
    return fold_to_one(operation(halves[0], halves[1]), operation);
  } else {
    return fold_to_one(part, operation);
  }
}

// The largest of the lanes' magnitudes as bits of a float: a NaN is larger than infinity.
template <int kWidth>
[[gnu::always_inline]] inline uint32_t largest_magnitude_bits(const float* x, int64_t size) {
  using IntPart = typename Lanes<kWidth>::IntPart;
  IntPart largest[Lanes<kWidth>::kParts] = {};
  for (int64_t i = 0; i < size; i += kLanes) {
    const Lanes<kWidth> values =
        size - i >= kLanes ? Lanes<kWidth>::load(x + i) : Lanes<kWidth>::load_first(x + i, size - i);
    for (int part = 0; part < Lanes<kWidth>::kParts; ++part) {
      const IntPart bits = reinterpret_cast<IntPart>(values.part[part]) & 0x7fffffff;
      largest[part] = bits > largest[part] ? bits : largest[part];
    }
  }
  const auto larger = [](const auto& a, const auto& b) __attribute__((always_inline)) { return a > b ? a : b; };
  return static_cast<uint32_t>(fold_lanes<kWidth>(largest, larger));
}

struct GroupScale {
  float scale = 0;
  float reciprocal = 0;
};

template <int kWidth>
[[gnu::always_inline]] inline GroupScale scale_of_group(const float* x, int64_t size) {
  const auto maximum = __builtin_bit_cast(float, largest_magnitude_bits<kWidth>(x, size));
  if (!(maximum <= std::numeric_limits<float>::max())) return {std::numeric_limits<float>::quiet_NaN(), 0};
  if (maximum < kSmallestMaximum) return {};
  return {maximum / kLargestCode, kLargestCode / maximum};
}

// The lowest byte of each lane. vpmovdb by name: GCC 12 takes the vector apart instead.
template <int kWidth>
[[gnu::always_inline]] inline void store_low_bytes(const typename Lanes<kWidth>::WordPart& words, uint8_t* target) {
#if defined(__x86_64__)
  if constexpr (kWidth == 16) {
    typedef char Bytes __attribute__((vector_size(16)));
    const Bytes bytes = __builtin_ia32_pmovdb512_mask(reinterpret_cast<Registers<16>::Ints>(words), Bytes{}, 0xffff);
    __builtin_memcpy(target, &bytes, sizeof(bytes));
    return;
  }
#endif
  typedef uint8_t Bytes __attribute__((vector_size(kWidth)));
  const Bytes bytes = __builtin_convertvector(words, Bytes);
  __builtin_memcpy(target, &bytes, sizeof(bytes));
}

// Codes of sixteen values as bytes; adds them to `sums`. The float 1.5 · 2^23 + code holds the code in its lowest byte, in two's
// complement: no conversion of a NaN to an integer, and its sums stay bounded.
template <int kWidth>
[[gnu::always_inline]] inline void round_to_codes(const Lanes<kWidth>& values, float reciprocal, uint8_t* codes,
                                                  typename Lanes<kWidth>::IntPart (&sums)[Lanes<kWidth>::kParts]) {
  using WordPart = typename Lanes<kWidth>::WordPart;
  using IntPart = typename Lanes<kWidth>::IntPart;
  constexpr float kRound = 12582912.0f;
  for (int part = 0; part < Lanes<kWidth>::kParts; ++part) {
    const auto words = reinterpret_cast<WordPart>(values.part[part] * reciprocal + kRound);
    sums[part] += reinterpret_cast<IntPart>(words << 24) >> 24;
    store_low_bytes<kWidth>(words, codes + part * kWidth);
  }
}

// Four quads of codes as words: see integer_dot.h.
template <int kWordsPerQuad>
[[gnu::always_inline]] inline void store_quads(const uint8_t (&codes)[kLanes], int64_t num_quads, uint32_t* words) {
  typedef short Shorts __attribute__((vector_size(kLanes)));
  typedef unsigned short UnsignedShorts __attribute__((vector_size(kLanes)));
  if constexpr (kWordsPerQuad == 1) {
    if (num_quads == kLanes / 4) {
      __builtin_memcpy(words, codes, kLanes);
    } else {
      for (int64_t quad = 0; quad < num_quads; ++quad) __builtin_memcpy(words + quad, codes + 4 * quad, 4);
    }
  } else {
    UnsignedShorts pairs;
    __builtin_memcpy(&pairs, codes, sizeof(pairs));
    const Shorts even = reinterpret_cast<Shorts>(pairs << 8) >> 8, odd = reinterpret_cast<Shorts>(pairs) >> 8;
    uint32_t even_words[kLanes / 4], odd_words[kLanes / 4];
    __builtin_memcpy(even_words, &even, sizeof(even));
    __builtin_memcpy(odd_words, &odd, sizeof(odd));
    for (int64_t quad = 0; quad < num_quads; ++quad) {
      words[2 * quad] = even_words[quad];
      words[2 * quad + 1] = odd_words[quad];
    }
  }
}

// The codes of one group into `words`; returns their sum.
template <int kWidth, int kWordsPerQuad>
[[gnu::always_inline]] inline int32_t convert_group(const float* x, int64_t size, float reciprocal, uint32_t* words) {
  typename Lanes<kWidth>::IntPart sums[Lanes<kWidth>::kParts] = {};
  for (int64_t i = 0; i < size; i += kLanes) {
    const int64_t count = size - i < kLanes ? size - i : kLanes;
    const Lanes<kWidth> values = count == kLanes ? Lanes<kWidth>::load(x + i) : Lanes<kWidth>::load_first(x + i, count);
    uint8_t codes[kLanes];
    round_to_codes<kWidth>(values, reciprocal, codes, sums);
    store_quads<kWordsPerQuad>(codes, (count + 3) / 4, words + i / 4 * kWordsPerQuad);
  }
  const auto added = [](const auto& a, const auto& b) __attribute__((always_inline)) { return a + b; };
  return fold_lanes<kWidth>(sums, added);
}

// Words of a row: codes up to whole chunks of the weights, then for each group its scale (a float) and −weight · Σ codes
// (an integer), where `weight` is the zero point of symmetric kinds, or 1 for those that store theirs.
struct ActivationLayout {
  int64_t num_code_words = 0;
  int32_t sum_weight = 1;
};

template <int kWidth, int kWordsPerQuad>
[[gnu::always_inline]] inline void convert_to_codes(const RowShape& shape, const ActivationLayout& layout, const float* x,
                                                    uint32_t* words) {
  uint32_t* side_words = words + layout.num_code_words;
  for (int64_t group = 0; group < shape.num_groups(); ++group) {
    const int64_t begin = group * shape.group_size;
    const int64_t size = shape.num_columns - begin < shape.group_size ? shape.num_columns - begin : shape.group_size;
    const GroupScale scale = scale_of_group<kWidth>(x + begin, size);
    uint32_t* codes = words + begin / 4 * kWordsPerQuad;
    const int32_t sum = convert_group<kWidth, kWordsPerQuad>(x + begin, size, scale.reciprocal, codes);
    __builtin_memcpy(side_words + 2 * group, &scale.scale, sizeof(float));
    side_words[2 * group + 1] = 0u - static_cast<uint32_t>(layout.sum_weight) * static_cast<uint32_t>(sum);
  }
  for (int64_t word = (shape.num_columns + 3) / 4 * kWordsPerQuad; word < layout.num_code_words; ++word) words[word] = 0;
}

}  // namespace skipper::cpu
