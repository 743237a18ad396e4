// Attention of some query rows that share one key/value head, tile by tile of sixty-four positions from position 0.
//
// Keys and values are reached through a view with two methods, keys(i) and values(i): the panel of positions 16·i to
// 16·i + 15. A row's bits depend on its own query and positions only: not on the rows it is computed with, nor on what lies
// in panels beyond its last position.
#pragma once

#include <type_traits>
#include <utility>

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/instruction_set.h"
#include "tensor/tensor.h"

namespace skipper::cpu {

// Row r is head r % num_heads of token r / num_heads. Token t sees the positions below first_limit + t · limit_step.
struct AttentionRows {
  const float* q;  // of the first token, [num_heads, head_dim]
  float* out;      // as q
  int64_t token_stride;
  int64_t num_tokens;
  int64_t num_heads;
  int64_t head_dim;
  int64_t first_limit;  // at least 1
  int64_t limit_step;   // 1 for causal attention, 0 where all see the same
  float scale;

  int64_t num_rows() const { return num_tokens * num_heads; }
  int64_t num_positions() const { return first_limit + (num_tokens - 1) * limit_step; }
  int64_t limit(int64_t row) const { return first_limit + row / num_heads * limit_step; }
  int64_t offset(int64_t row) const { return row / num_heads * token_stride + row % num_heads * head_dim; }
};

// Rows that share each load of a panel from the second-level cache.
inline constexpr int64_t kRowsOfTask = 64;

// The calling thread's working memory for the rows of one task, kept between calls and grown to the largest seen.
template <typename T>
struct AttentionScratch {
  OnlineSoftmax softmax;
  float* scores;    // [rows, 64]
  float* sums;      // [rows, padded_dim]
  int64_t* limits;  // [rows]
  T* weights;       // [rows, 64]
  T* queries;       // [rows, padded_dim]
};

inline std::byte* attention_memory(size_t num_bytes) {
  static thread_local Tensor memory;
  if (!memory.defined() || memory.num_bytes() < num_bytes) memory = Tensor::empty({static_cast<int64_t>(num_bytes)}, DType::kU8);
  return memory.bytes();
}

template <typename T>
AttentionScratch<T> attention_scratch(int64_t num_rows, int64_t head_dim) {
  const int64_t rows = (num_rows + kLanes - 1) / kLanes * kLanes, padded_dim = padded_head_dim(head_dim);
  const int64_t floats = rows * (3 + kLanes + kTilePositions + padded_dim), elements = rows * (kTilePositions + padded_dim);
  auto* memory = reinterpret_cast<float*>(attention_memory(static_cast<size_t>(floats) * sizeof(float) +
                                                           static_cast<size_t>(elements) * sizeof(T) +
                                                           static_cast<size_t>(rows) * sizeof(int64_t)));
  const auto take = [&memory](int64_t count) { return std::exchange(memory, memory + count); };
  AttentionScratch<T> scratch;
  scratch.softmax = {.largest = take(rows), .next_largest = take(rows), .shrink = take(rows), .totals = take(rows * kLanes)};
  scratch.scores = take(rows * kTilePositions);
  scratch.sums = take(rows * padded_dim);
  scratch.limits = reinterpret_cast<int64_t*>(memory);
  scratch.weights = reinterpret_cast<T*>(scratch.limits + rows);
  scratch.queries = scratch.weights + rows * kTilePositions;
  return scratch;
}

// One task: its rows, where their keys and values are, and its memory.
template <typename T, typename View>
struct AttentionTask {
  const AttentionRows& rows;
  const View& view;
  AttentionScratch<T> scratch;
  int64_t num_rows;
  int64_t num_words;  // of a key
  int64_t padded_dim;
};

// function(row, std::integral_constant<int, n>) for groups of n rows: as many as registers hold, then 2 and 1.
template <int kWidth, typename Function>
[[gnu::always_inline]] inline void for_row_groups(int64_t num_rows, const Function& function) {
  constexpr int kRows = kAttentionRows<kWidth>;
  int64_t row = 0;
  for (; row + kRows <= num_rows; row += kRows) function(row, std::integral_constant<int, kRows>{});
  if constexpr (kRows > 2) {
    for (; row + 2 <= num_rows; row += 2) function(row, std::integral_constant<int, 2>{});
  }
  if constexpr (kRows > 1) {
    for (; row < num_rows; ++row) function(row, std::integral_constant<int, 1>{});
  }
}

// Queries times scale · log2 e, rounded to the type of the keys; nothing summed, nothing seen.
template <Isa kIsa, typename T, typename View>
[[gnu::always_inline]] inline void begin_rows(const AttentionTask<T, View>& task) {
  using V = Lanes<register_width(kIsa)>;
  constexpr float kLog2E = 1.44269504f;
  const AttentionScratch<T>& scratch = task.scratch;
  const int64_t head_dim = task.rows.head_dim, whole = head_dim - head_dim % kLanes;
  const V scale = V::broadcast(task.rows.scale * kLog2E);
  for (int64_t row = 0; row < task.num_rows; ++row) {
    scratch.limits[row] = task.rows.limit(row);
    scratch.softmax.largest[row] = kNothingSeen;
    const float* q = task.rows.q + task.rows.offset(row);
    T* target = scratch.queries + row * task.padded_dim;
    for (int64_t d = 0; d < whole; d += kLanes) store_rounded<kIsa>(V::load(q + d) * scale, target + d);
    if (whole < head_dim) store_rounded<kIsa>(V::load_first(q + whole, head_dim - whole) * scale, target + whole);
  }
  std::fill_n(scratch.softmax.totals, task.num_rows * kLanes, 0.0f);
  std::fill_n(scratch.sums, task.num_rows * task.padded_dim, 0.0f);
}

// How many positions of the tile at `tile_begin` a row sees.
template <typename T>
[[gnu::always_inline]] inline int64_t visible(const AttentionScratch<T>& scratch, int64_t row, int64_t tile_begin) {
  return std::clamp<int64_t>(scratch.limits[row] - tile_begin, 0, kTilePositions);
}

template <Isa kIsa, typename T, typename View>
[[gnu::always_inline]] inline void score_rows(const AttentionTask<T, View>& task, const TilePanels<T>& panels,
                                              int64_t tile_begin) {
  const AttentionScratch<T>& scratch = task.scratch;
  for_row_groups<register_width(kIsa)>(task.num_rows, [&]<int kRows>(int64_t row, std::integral_constant<int, kRows>)
                                                          __attribute__((always_inline)) {
    // Limits ascend with the rows.
    const int64_t count = visible(scratch, row + kRows - 1, tile_begin);
    const int64_t num_panels = (count + kPanelPositions - 1) / kPanelPositions;
    const ScoreOperands<T> operands{scratch.queries + row * task.padded_dim, task.padded_dim, task.num_words,
                                    scratch.scores + row * kTilePositions};
    score_panels<kIsa, T, kRows>(operands, panels, num_panels);
  });
}

template <Isa kIsa, typename T, typename View>
[[gnu::always_inline]] inline void weigh_rows(const AttentionTask<T, View>& task, int64_t tile_begin) {
  const AttentionScratch<T>& scratch = task.scratch;
  for (int64_t row = 0; row < task.num_rows; ++row) {
    find_largest<register_width(kIsa)>(scratch.softmax, row, scratch.scores + row * kTilePositions,
                                       visible(scratch, row, tile_begin));
  }
  shrink_sums<register_width(kIsa)>(scratch.softmax, task.num_rows);
  for (int64_t row = 0; row < task.num_rows; ++row) {
    weigh<kIsa>(scratch.softmax, row, scratch.scores + row * kTilePositions, scratch.weights + row * kTilePositions);
  }
}

// Positions that all rows of a group see are added together, the rest row by row: a value that one row must not see would
// turn its sum into NaN even with weight zero if it were infinite.
template <Isa kIsa, typename T, typename View>
[[gnu::always_inline]] inline void add_rows(const AttentionTask<T, View>& task, const TilePanels<T>& panels,
                                            int64_t tile_begin) {
  const AttentionScratch<T>& scratch = task.scratch;
  const auto operands = [&](int64_t row, const float* shrink) __attribute__((always_inline)) {
    return ValueOperands<T>{scratch.weights + row * kTilePositions, shrink, scratch.sums + row * task.padded_dim,
                            task.padded_dim};
  };
  for_row_groups<register_width(kIsa)>(task.num_rows, [&]<int kRows>(int64_t row, std::integral_constant<int, kRows>)
                                                          __attribute__((always_inline)) {
    const int64_t fewest = visible(scratch, row, tile_begin), most = visible(scratch, row + kRows - 1, tile_begin);
    const int64_t shared = fewest == most ? fewest : fewest - fewest % kWordElements<T>;
    if (most == 0) return;
    add_values<kIsa, T, kRows>(operands(row, scratch.softmax.shrink + row), panels, {0, shared});
    if (shared == most) return;
    constexpr float kUnchanged = 1.0f;
    for (int64_t r = row; r < row + kRows; ++r) {
      add_values<kIsa, T, 1>(operands(r, &kUnchanged), panels, {shared, visible(scratch, r, tile_begin)});
    }
  });
}

template <Isa kIsa, typename T, typename View>
[[gnu::always_inline]] inline void write_rows(const AttentionTask<T, View>& task) {
  using V = Lanes<register_width(kIsa)>;
  const int64_t head_dim = task.rows.head_dim, whole = head_dim - head_dim % kLanes;
  for (int64_t row = 0; row < task.num_rows; ++row) {
    const V factor = V::broadcast(1.0f / sum_of_lanes(V::load(task.scratch.softmax.totals + row * kLanes)));
    const float* sums = task.scratch.sums + row * task.padded_dim;
    float* out = task.rows.out + task.rows.offset(row);
    for (int64_t d = 0; d < whole; d += kLanes) (V::load(sums + d) * factor).store(out + d);
    if (whole < head_dim) (V::load(sums + whole) * factor).store_first(out + whole, head_dim - whole);
  }
}

// out = softmax(q · kᵀ · scale) · v for all rows of the task.
template <typename T, typename View>
struct AttendKernel {
  static constexpr bool has_code_for(Isa isa) {
    const bool is_pair_product = isa == Isa::kAvx512Bf16 && sizeof(T) == 2;
    return isa == Isa::kPortable || isa == Isa::kAvx2 || isa == Isa::kAvx512 || is_pair_product;
  }

  template <Isa kIsa>
  [[gnu::always_inline]] static void run(const AttentionTask<T, View>& task) {
    begin_rows<kIsa>(task);
    const int64_t num_positions = task.rows.num_positions();
    for (int64_t tile_begin = 0; tile_begin < num_positions; tile_begin += kTilePositions) {
      TilePanels<T> panels;
      const int64_t end = std::min(tile_begin + kTilePositions, num_positions);
      for (int64_t i = 0; i * kPanelPositions < end - tile_begin; ++i) {
        panels.keys[i] = task.view.keys(tile_begin / kPanelPositions + i);
        panels.values[i] = task.view.values(tile_begin / kPanelPositions + i);
      }
      score_rows<kIsa>(task, panels, tile_begin);
      weigh_rows<kIsa>(task, tile_begin);
      add_rows<kIsa>(task, panels, tile_begin);
    }
    write_rows<kIsa>(task);
  }
};

template <typename T, typename View>
void attend(const AttentionRows& rows, const View& view) {
  using Task = AttentionTask<T, View>;
  const Task task{rows,
                  view,
                  attention_scratch<T>(rows.num_rows(), rows.head_dim),
                  rows.num_rows(),
                  (rows.head_dim + kWordElements<T> - 1) / kWordElements<T>,
                  padded_head_dim(rows.head_dim)};
  compiled_for<AttendKernel<T, View>, const Task&>(best_isa())(task);
}

}  // namespace skipper::cpu
