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

#include "kernels/cpu/lane_words.h"

namespace skipper::cpu {

inline constexpr int64_t kPanelPositions = 16;

template <typename T>
inline constexpr int64_t kWordElements = sizeof(uint32_t) / sizeof(T);

constexpr int64_t padded_head_dim(int64_t head_dim) { return (head_dim + kLanes - 1) / kLanes * kLanes; }
constexpr int64_t panel_elements(int64_t head_dim) { return kPanelPositions * padded_head_dim(head_dim); }

// The key and value of one head at one position, and the panels and the position in them where they go.
template <typename T>
struct KvRow {
  const float* key;
  const float* value;
  int64_t head_dim;
  T* key_panel;
  T* value_panel;
  int64_t position;
};

// Writes a row into its panels, rounded to T; the padding of the head becomes zero. Writes nothing of other positions, so
// threads may write neighbours at the same time.
template <typename T>
struct WriteKvKernel {
  static constexpr bool has_code_for(Isa isa) { return isa == Isa::kPortable || isa == Isa::kAvx2 || isa >= Isa::kAvx512; }

  template <Isa kIsa>
  [[gnu::always_inline]] static void run(const KvRow<T>& row) {
    constexpr int64_t kPerWord = kWordElements<T>;
    T* keys = row.key_panel + row.position * kPerWord;
    T* values = row.value_panel + row.position / kPerWord * padded_head_dim(row.head_dim) * kPerWord + row.position % kPerWord;
    for (int64_t d = 0; d < row.head_dim; d += kLanes) {
      T elements[kLanes];
      round_sixteen<kIsa>(row.key + d, row.head_dim - d, elements);
      for (int i = 0; i < kLanes; i += kPerWord, keys += kPanelPositions * kPerWord) {
        __builtin_memcpy(static_cast<void*>(keys), elements + i, sizeof(uint32_t));
      }
      round_sixteen<kIsa>(row.value + d, row.head_dim - d, elements);
      for (int i = 0; i < kLanes; ++i, values += kPerWord) *values = elements[i];
    }
  }

  template <Isa kIsa>
  [[gnu::always_inline]] static void round_sixteen(const float* source, int64_t count, T* elements) {
    using V = Lanes<register_width(kIsa)>;
    store_rounded<kIsa>(count >= kLanes ? V::load(source) : V::load_first(source, count), elements);
  }
};

// The code for this CPU, to be called row by row.
template <typename T>
auto kv_writer() -> void (*)(const KvRow<T>&) {
  return compiled_for<WriteKvKernel<T>, const KvRow<T>&>(best_isa());
}

}  // namespace skipper::cpu
