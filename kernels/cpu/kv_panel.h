// Sixteen consecutive positions of the keys or values of one head, in the order in which attention reads them.
//
// A panel is made of 32-bit words of n elements, n = 1 for f32 and 2 for bf16, so that sixteen of them fill a 64-byte vector.
//
//   keys    [D / n][position 16][element n]    vector w: elements n·w .. n·w + n − 1 of every position
//   values  [16 / n][D][position n]            vector (w, d): positions n·w .. n·w + n − 1, elements d .. d + 15
//
// D is padded to whole vectors. A product of queries and keys, or of weights and values, is then a chain of one instruction:
// broadcast a word of the left side, multiply with sixteen words of the right side, add.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace skipper::cpu {

inline constexpr int64_t kPanelPositions = 16;

template <typename T>
inline constexpr int64_t kWordElements = sizeof(uint32_t) / sizeof(T);

constexpr int64_t padded_head_dim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
constexpr int64_t panel_elements(int64_t head_dim) { return kPanelPositions * padded_head_dim(head_dim); }

// Words of one position's key; the last of an odd head in BF16 ends with a zero.
template <typename T>
constexpr int64_t key_words(int64_t head_dim) {
  return (head_dim + kWordElements<T> - 1) / kWordElements<T>;
}

template <typename T>
inline void write_key(const float* key, int64_t head_dim, T* panel, int64_t position) {
  constexpr int64_t kPerWord = kWordElements<T>;
  T* target = panel + position * kPerWord;
  for (int64_t d = 0; d < key_words<T>(head_dim) * kPerWord; ++d) {
    target[d / kPerWord * kPanelPositions * kPerWord + d % kPerWord] = static_cast<T>(d < head_dim ? key[d] : 0.0f);
  }
}

template <typename T>
inline void write_value(const float* value, int64_t head_dim, T* panel, int64_t position) {
  constexpr int64_t kPerWord = kWordElements<T>;
  T* target = panel + position / kPerWord * padded_head_dim(head_dim) * kPerWord + position % kPerWord;
  for (int64_t d = 0; d < head_dim; ++d) target[d * kPerWord] = static_cast<T>(value[d]);
}

}  // namespace skipper::cpu
