// The two products of attention over one tile of positions, in register tiles whose shape never changes a sum.
//
// Every (row, position) score is one chain over the head's words, every (row, element) of the output one chain over the
// positions in ascending order; a register tile only decides how many chains share the loads.
#pragma once

#include <algorithm>

#include "kernels/cpu/kv_panel.h"
#include "kernels/cpu/online_softmax.h"

namespace skipper::cpu {

inline constexpr int64_t kTilePanels = kTilePositions / kPanelPositions;

// The tile that fills the accumulator registers: 32 of 16 floats, 16 of 8, 16 of 4.
template <int kWidth>
inline constexpr int kAttentionRows = kWidth == 16 ? 4 : (kWidth == 8 ? 2 : 1);
template <int kWidth>
inline constexpr int kAttentionColumns = kWidth == 16 ? 4 : 2;

template <typename T>
[[gnu::always_inline]] inline const uint32_t* words_of(const T* elements) {
  return reinterpret_cast<const uint32_t*>(elements);
}

// The panels of one tile; those beyond the last visible position are never touched.
template <typename T>
struct TilePanels {
  const T* keys[kTilePanels];
  const T* values[kTilePanels];
};

// A few rows of queries and where their scores go.
template <typename T>
struct ScoreOperands {
  const T* queries;   // [rows, padded_dim]
  int64_t padded_dim;
  int64_t num_words;  // of a key
  float* scores;      // [rows, 64]
};

// scores = queries · keys, for kPanels panels from `panel`.
template <Isa kIsa, typename T, int kRows, int kPanels>
[[gnu::always_inline]] inline void score_tile(const ScoreOperands<T>& o, const TilePanels<T>& panels, int64_t panel) {
  using V = Lanes<register_width(kIsa)>;
  using W = LaneWords<register_width(kIsa)>;
  const int64_t row_words = o.padded_dim / kWordElements<T>;
  V sums[kRows][kPanels];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kPanels; ++c) sums[r][c] = V::zero();
  }
  const uint32_t* sources[kPanels];
  for (int c = 0; c < kPanels; ++c) sources[c] = words_of(panels.keys[panel + c]);
  for (int64_t word = 0; word < o.num_words; ++word) {
    W keys[kPanels];
    for (int c = 0; c < kPanels; ++c) keys[c] = W::load(sources[c] + word * kPanelPositions);
    for (int r = 0; r < kRows; ++r) {
      const W query = W::broadcast_from(words_of(o.queries) + r * row_words + word);
      for (int c = 0; c < kPanels; ++c) add_word_products<kIsa, T>(sums[r][c], query, keys[c]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kPanels; ++c) sums[r][c].store(o.scores + r * kTilePositions + (panel + c) * kLanes);
  }
}

template <Isa kIsa, typename T, int kRows>
[[gnu::always_inline]] inline void score_panels(const ScoreOperands<T>& o, const TilePanels<T>& panels, int64_t num_panels) {
  constexpr int kColumns = kAttentionColumns<register_width(kIsa)>;
  int64_t panel = 0;
  for (; panel + kColumns <= num_panels; panel += kColumns) score_tile<kIsa, T, kRows, kColumns>(o, panels, panel);
  for (; panel < num_panels; ++panel) score_tile<kIsa, T, kRows, 1>(o, panels, panel);
}

// The weights of a few rows and what they add to; positions count within the tile.
template <typename T>
struct ValueOperands {
  const T* weights;     // [rows, 64]
  const float* shrink;  // [rows]
  float* sums;          // [rows, padded_dim]
  int64_t padded_dim;
};

// sums += weights · values for one word of positions; `source` is the word's first element, `mask` hides what must not count.
template <Isa kIsa, typename T, int kRows, int kVectors>
[[gnu::always_inline]] inline void add_position_word(Lanes<register_width(kIsa)> (&sums)[kRows][kVectors],
                                                     const uint32_t* weights, const uint32_t* source, uint32_t mask) {
  using W = LaneWords<register_width(kIsa)>;
  W values[kVectors];
  for (int i = 0; i < kVectors; ++i) values[i] = W::load(source + i * kLanes).masked(mask);
  for (int r = 0; r < kRows; ++r) {
    const W weight = W::broadcast_from(weights + r * (kTilePositions / kWordElements<T>));
    for (int i = 0; i < kVectors; ++i) add_word_products<kIsa, T>(sums[r][i], weight, values[i]);
  }
}

// Positions [begin, end) of a tile; begin is even.
struct TileRange {
  int64_t begin;
  int64_t end;
};

// sums = sums · shrink + Σ weights · values over the range, for kVectors · 16 elements from `element`. The odd half of a last
// pair counts as zero, whatever the cache holds there.
template <Isa kIsa, typename T, int kRows, int kVectors>
[[gnu::always_inline]] inline void value_tile(const ValueOperands<T>& o, const TilePanels<T>& panels, int64_t element,
                                              TileRange range) {
  using V = Lanes<register_width(kIsa)>;
  constexpr int64_t kPerWord = kWordElements<T>, kPanelWords = kPanelPositions / kPerWord;
  constexpr uint32_t kAll = 0xffffffffu, kEven = 0x0000ffffu;
  V sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    const V shrink = V::broadcast(o.shrink[r]);
    for (int i = 0; i < kVectors; ++i) sums[r][i] = V::load(o.sums + r * o.padded_dim + element + i * kLanes) * shrink;
  }
  const uint32_t* weights = words_of(o.weights);
  const int64_t whole = range.end / kPerWord;
  int64_t word = range.begin / kPerWord;
  while (word < whole) {
    const uint32_t* panel = words_of(panels.values[word / kPanelWords]) + element;
    const int64_t first = word / kPanelWords * kPanelWords, stop = std::min(first + kPanelWords, whole);
    for (; word < stop; ++word) {
      add_position_word<kIsa, T, kRows, kVectors>(sums, weights + word, panel + (word - first) * o.padded_dim, kAll);
    }
  }
  if (range.end % kPerWord != 0) {
    const uint32_t* panel = words_of(panels.values[whole / kPanelWords]) + element;
    add_position_word<kIsa, T, kRows, kVectors>(sums, weights + whole, panel + whole % kPanelWords * o.padded_dim, kEven);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kVectors; ++i) sums[r][i].store(o.sums + r * o.padded_dim + element + i * kLanes);
  }
}

template <Isa kIsa, typename T, int kRows>
[[gnu::always_inline]] inline void add_values(const ValueOperands<T>& o, const TilePanels<T>& panels, TileRange range) {
  constexpr int kColumns = kAttentionColumns<register_width(kIsa)>;
  int64_t element = 0;
  for (; element + kColumns * kLanes <= o.padded_dim; element += kColumns * kLanes) {
    value_tile<kIsa, T, kRows, kColumns>(o, panels, element, range);
  }
  for (; element < o.padded_dim; element += kLanes) value_tile<kIsa, T, kRows, 1>(o, panels, element, range);
}

}  // namespace skipper::cpu
