#include "kernels/permute_tokens.h"

#include <algorithm>
#include <type_traits>

#include "kernels/cpu/element_type.h"
#include "kernels/cpu/row_pieces.h"
#include "kernels/cpu/row_sums.h"

namespace skipper::cpu {
namespace {

void check_row_index(const int32_t* rows, int64_t count, int64_t num_rows) {
  for (int64_t i = 0; i < count; ++i) CHECK(rows[i] >= 0 && rows[i] < num_rows) << "row " << rows[i] << " of " << num_rows;
}

template <typename S, typename T>
struct RowCopies {
  const S* x;
  const int32_t* row_index;
  int64_t row_size;
  T* y;
};

struct GatherKernel {
  template <int kWidth, typename S, typename T>
  [[gnu::always_inline]] static void run(const RowCopies<S, T>& copies, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const S* const source = copies.x + copies.row_index[r] * copies.row_size;
      T* const target = copies.y + r * copies.row_size;
      if constexpr (std::is_same_v<S, T>) {
        std::copy_n(source, copies.row_size, target);
      } else {
        for_each_vector<kWidth>(copies.row_size, [&](const auto& load, const auto& store) __attribute__((always_inline)) {
          store(target, load(source));
        });
      }
    }
  }
};

// Rows of x summed for each token: the rows listed in [offsets[t], offsets[t + 1]), times their weights if there are any.
template <typename S, typename T>
struct RowSums {
  const S* x;
  int64_t row_size;
  const int32_t* row_index;
  const float* weights;  // null = all 1
  const int32_t* offsets;
  T* y;
};

struct SumKernel {
  template <int kWidth, typename S, typename T>
  [[gnu::always_inline]] static void run(const RowSums<S, T>& sums, int64_t begin, int64_t end) {
    constexpr int kVectors = 8;  // as many accumulators in registers; rows are read in runs of several cache lines
    for (int64_t token = begin; token < end; ++token) {
      int64_t column = 0;
      for (; column + kVectors * kLanes <= sums.row_size; column += kVectors * kLanes) {
        sum_columns<kWidth, kVectors>(sums, token, column);
      }
      for (; column + kLanes <= sums.row_size; column += kLanes) sum_columns<kWidth, 1>(sums, token, column);
      if (column < sums.row_size) sum_last_columns<kWidth>(sums, token, column);
    }
  }

  // Listed rows inside: a token's sum stays in registers, and its order is that of the list.
  template <int kWidth, int kVectors, typename S, typename T>
  [[gnu::always_inline]] static void sum_columns(const RowSums<S, T>& sums, int64_t token, int64_t column) {
    using V = Lanes<kWidth>;
    V total[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) total[v] = V::zero();
    for (int32_t i = sums.offsets[token]; i < sums.offsets[token + 1]; ++i) {
      const S* const row = sums.x + sums.row_index[i] * sums.row_size + column;
#pragma GCC unroll 8  // or the sums live in memory
      for (int v = 0; v < kVectors; ++v) add_term(sums, i, V::load(row + v * kLanes), total[v]);
    }
    T* const target = sums.y + token * sums.row_size + column;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) total[v].store(target + v * kLanes);
  }

  template <int kWidth, typename S, typename T>
  [[gnu::always_inline]] static void sum_last_columns(const RowSums<S, T>& sums, int64_t token, int64_t column) {
    using V = Lanes<kWidth>;
    const int64_t count = sums.row_size - column;
    V total = V::zero();
    for (int32_t i = sums.offsets[token]; i < sums.offsets[token + 1]; ++i) {
      add_term(sums, i, V::load_first(sums.x + sums.row_index[i] * sums.row_size + column, count), total);
    }
    total.store_first(sums.y + token * sums.row_size + column, count);
  }

  template <int kWidth, typename S, typename T>
  [[gnu::always_inline]] static void add_term(const RowSums<S, T>& sums, int32_t i, const Lanes<kWidth>& x,
                                              Lanes<kWidth>& total) {
    if (sums.weights == nullptr) {
      total = total + x;
    } else {
      total.add_product(Lanes<kWidth>::broadcast(sums.weights[i]), x);
    }
  }
};

void check_lists(const Tensor& row_index, const Tensor& offsets, int64_t num_rows) {
  const auto ends = offsets.span<int32_t>();
  for (size_t t = 1; t < ends.size(); ++t) CHECK_LE(ends[t - 1], ends[t]) << "row sum: offsets descend at token " << t - 1;
  CHECK(ends.front() >= 0 && ends.back() <= row_index.dim(0)) << "row sum: offsets beyond the listed rows";
  check_row_index(row_index.data<int32_t>() + ends.front(), ends.back() - ends.front(), num_rows);
}

template <typename S, typename T>
void sum_rows(const RowSums<S, T>& sums, int64_t num_tokens, ThreadPool& workers) {
  if (num_tokens == 0) return;
  const int64_t num_terms = sums.offsets[num_tokens] - sums.offsets[0];
  const int64_t read_bytes = num_terms * sums.row_size * static_cast<int64_t>(sizeof(S));
  const int64_t written_bytes = num_tokens * sums.row_size * static_cast<int64_t>(sizeof(T));
  for_row_pieces(workers, {num_tokens, (read_bytes + written_bytes) / num_tokens}, [&](int64_t begin, int64_t end) {
    run_on_best_isa<SumKernel>(sums, begin, end);
  });
}

template <typename S, typename T>
void copy_rows(const RowCopies<S, T>& copies, int64_t num_rows, ThreadPool& workers) {
  const int64_t row_bytes = copies.row_size * static_cast<int64_t>(sizeof(S) + sizeof(T));
  for_row_pieces(workers, {num_rows, row_bytes}, [&](int64_t begin, int64_t end) {
    run_on_best_isa<GatherKernel>(copies, begin, end);
  });
}

}  // namespace

void gather_rows(const Tensor& x, const Tensor& row_index, Tensor& y, ThreadPool& workers) {
  const int32_t* rows = row_index.data<int32_t>();
  const int64_t num_rows = row_index.dim(0), row_size = x.dim(1);
  check_row_index(rows, num_rows, x.dim(0));
  if (x.dtype() == DType::kU8) {
    return copy_rows(RowCopies<uint8_t, uint8_t>{x.data<uint8_t>(), rows, row_size, y.data<uint8_t>()}, num_rows, workers);
  }
  with_floats(x, [&]<typename S>(const S* source) {
    with_mutable_floats(y, [&]<typename T>(T* target) {
      copy_rows(RowCopies<S, T>{source, rows, row_size, target}, num_rows, workers);
    });
  });
}

void weighted_row_sum(const WeightedSumInput& input, Tensor& y, ThreadPool& workers) {
  check_lists(input.row_of_pair, input.pair_offsets, input.x.dim(0));
  with_mutable_floats(y, [&]<typename T>(T* target) {
    sum_rows(RowSums<float, T>{input.x.data<float>(), input.x.dim(1), input.row_of_pair.data<int32_t>(),
                               input.weights.data<float>(), input.pair_offsets.data<int32_t>(), target},
             y.dim(0), workers);
  });
}

void row_sum(const RowSumInput& input, Tensor& y, ThreadPool& workers) {
  check_lists(input.row_index, input.offsets, input.x.dim(0));
  with_floats(input.x, [&]<typename S>(const S* x) {
    sum_rows(RowSums<S, float>{x, input.x.dim(1), input.row_index.data<int32_t>(), nullptr, input.offsets.data<int32_t>(),
                               y.data<float>()},
             y.dim(0), workers);
  });
}

}  // namespace skipper::cpu
