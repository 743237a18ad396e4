// Attention of a few query rows that see the same positions: scores, softmax, weighted values, each in position order.
//
// Keys and values are reached through a view with one method, `span(position, end)`: the longest run of evenly spaced rows
// that starts at `position` and ends at or before `end`. A query row's bits depend on its own positions only: every score is
// one dot product, the softmax sums by position % 16, values are added from position 0 upward.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/row_softmax.h"

namespace skipper::cpu {

template <typename T>
struct KvSpan {
  const T* k;
  const T* v;
  int64_t row_stride;
  int64_t count;
};

inline constexpr int64_t kMaxAttentionRows = 16;

// At most kMaxAttentionRows rows. scores: num_rows rows of padded_to_lanes(num_positions) floats, working memory.
struct AttentionRows {
  const float* q;
  float* out;
  int64_t row_stride;
  int64_t num_rows;
  int64_t head_dim;
  int64_t num_positions;
  float scale;
  float* scores;

  int64_t scores_stride() const { return padded_to_lanes(num_positions); }
};

// The calling thread's scores for `num_positions`, kept between calls and grown to the longest context seen: 16 MiB at
// 262,144 positions.
inline float* attention_scores(int64_t num_positions) {
  static thread_local std::vector<float> scores;
  const int64_t count = kMaxAttentionRows * padded_to_lanes(num_positions);
  if (static_cast<int64_t>(scores.size()) < count) scores.resize(static_cast<size_t>(count));
  return scores.data();
}

template <int kWidth, typename View>
[[gnu::always_inline]] inline void score_rows(const AttentionRows& rows, const View& view) {
  for (int64_t position = 0; position < rows.num_positions;) {
    const auto span = view.span(position, rows.num_positions);
    const DotOperands operands{rows.q,        rows.row_stride,        span.k,
                               span.row_stride, rows.head_dim, rows.scores + position,
                               rows.scores_stride()};
    dot_products<kWidth>(operands, rows.num_rows, span.count);
    position += span.count;
  }
}

// Softmax of one row of scores, as unnormalised weights. Returns 1 / their sum.
template <int kWidth>
[[gnu::always_inline]] inline float softmax_row(const AttentionRows& rows, float* scores) {
  using V = Lanes<kWidth>;
  const int64_t padded = rows.scores_stride();
  std::fill(scores + rows.num_positions, scores + padded, kMinusInfinity);
  const V scale = V::broadcast(rows.scale);
  const int64_t whole = rows.num_positions - rows.num_positions % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) (V::load(scores + i) * scale).store(scores + i);
  for (int64_t i = whole; i < rows.num_positions; ++i) scores[i] *= rows.scale;
  return 1.0f / exponentiate_row<kWidth>(scores, padded);
}

// kRows query rows from `row`, kVectors · 16 output elements from `element`.
template <int kWidth, int kRows, int kVectors, typename View>
[[gnu::always_inline]] inline void add_values(const AttentionRows& rows, const View& view, int64_t row, int64_t element) {
  using V = Lanes<kWidth>;
  V sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kVectors; ++i) sums[r][i] = V::zero();
  }
  const float* weights = rows.scores + row * rows.scores_stride();
  for (int64_t position = 0; position < rows.num_positions;) {
    const auto span = view.span(position, rows.num_positions);
    for (int64_t i = 0; i < span.count; ++i, ++position) {
      V values[kVectors];
      for (int j = 0; j < kVectors; ++j) values[j] = V::load(span.v + i * span.row_stride + element + j * kLanes);
      for (int r = 0; r < kRows; ++r) {
        const V weight = V::broadcast(weights[r * rows.scores_stride() + position]);
        for (int j = 0; j < kVectors; ++j) sums[r][j].add_product(weight, values[j]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    float* out = rows.out + (row + r) * rows.row_stride + element;
    for (int j = 0; j < kVectors; ++j) sums[r][j].store(out + j * kLanes);
  }
}

// A head narrower than one vector: plain sums in the same order.
template <typename View>
[[gnu::always_inline]] inline void add_narrow_values(const AttentionRows& rows, const View& view, int64_t row) {
  float* out = rows.out + row * rows.row_stride;
  std::fill(out, out + rows.head_dim, 0.0f);
  const float* weights = rows.scores + row * rows.scores_stride();
  for (int64_t position = 0; position < rows.num_positions;) {
    const auto span = view.span(position, rows.num_positions);
    for (int64_t i = 0; i < span.count; ++i, ++position) {
      for (int64_t d = 0; d < rows.head_dim; ++d) {
        out[d] += weights[position] * static_cast<float>(span.v[i * span.row_stride + d]);
      }
    }
  }
}

// All output elements of kRows rows. The last vector of a head whose size is no multiple of 16 overlaps the one before it
// and computes the shared elements again, to the same bits.
template <int kWidth, int kRows, typename View>
[[gnu::always_inline]] inline void add_values_of_rows(const AttentionRows& rows, const View& view, int64_t row) {
  constexpr int kVectors = kTileColumns<kWidth>;
  int64_t element = 0;
  for (; element + kVectors * kLanes <= rows.head_dim; element += kVectors * kLanes) {
    add_values<kWidth, kRows, kVectors>(rows, view, row, element);
  }
  while (element < rows.head_dim) {
    const int64_t begin = std::min(element, rows.head_dim - kLanes);
    add_values<kWidth, kRows, 1>(rows, view, row, begin);
    element = begin + kLanes;
  }
}

template <int kWidth, typename View>
[[gnu::always_inline]] inline void add_all_values(const AttentionRows& rows, const View& view) {
  constexpr int kRows = kTileRows<kWidth>;
  int64_t row = 0;
  if (rows.head_dim < kLanes) {
    for (; row < rows.num_rows; ++row) add_narrow_values(rows, view, row);
    return;
  }
  for (; row + kRows <= rows.num_rows; row += kRows) add_values_of_rows<kWidth, kRows>(rows, view, row);
  for (; row < rows.num_rows; ++row) add_values_of_rows<kWidth, 1>(rows, view, row);
}

// out = softmax(q · kᵀ · scale) · v for all rows; num_positions is at least 1.
template <int kWidth, typename View>
[[gnu::always_inline]] inline void attend(const AttentionRows& rows, const View& view) {
  score_rows<kWidth>(rows, view);
  float factors[kMaxAttentionRows];
  for (int64_t r = 0; r < rows.num_rows; ++r) factors[r] = softmax_row<kWidth>(rows, rows.scores + r * rows.scores_stride());
  add_all_values<kWidth>(rows, view);
  for (int64_t r = 0; r < rows.num_rows; ++r) {
    float* out = rows.out + r * rows.row_stride;
    for (int64_t d = 0; d < rows.head_dim; ++d) out[d] *= factors[r];
  }
}

}  // namespace skipper::cpu
