#include "kernels/permute_tokens.h"

#include <vector>

#include "kernels/cpu/element_type.h"
#include "kernels/cpu/row_sums.h"

namespace skipper::cpu {
namespace {

int64_t checked_row(int32_t index, int64_t num_rows) {
  CHECK(index >= 0 && index < num_rows) << "row " << index << " of " << num_rows;
  return index;
}

struct WeightedSum {
  const float* x;
  int64_t num_rows;
  int64_t row_size;
  const int32_t* row_of_pair;
  const float* weights;
  const int32_t* pair_offsets;
  int64_t num_tokens;
};

// Pairs inside, vectors outside: a token's sum stays in registers, and its order is that of its pairs.
struct WeightedRowSumKernel {
  template <int kWidth>
  [[gnu::always_inline]] static void run(const WeightedSum& sum, float* const& y) {
    for (int64_t token = 0; token < sum.num_tokens; ++token) {
      float* const target = y + token * sum.row_size;
      for_each_vector<kWidth>(
          sum.row_size, [&](const auto& load, const auto& store) __attribute__((always_inline)) {
            Lanes<kWidth> total = Lanes<kWidth>::zero();
            for (int32_t pair = sum.pair_offsets[token]; pair < sum.pair_offsets[token + 1]; ++pair) {
              const float* row = sum.x + sum.row_of_pair[pair] * sum.row_size;
              total.add_product(Lanes<kWidth>::broadcast(sum.weights[pair]), load(row));
            }
            store(target, total);
          });
    }
  }
};

void check_pairs(const WeightedSum& sum, int64_t num_pairs) {
  for (int64_t token = 0; token < sum.num_tokens; ++token) {
    CHECK_LE(sum.pair_offsets[token], sum.pair_offsets[token + 1]) << "weighted_row_sum: offsets descend at token " << token;
  }
  CHECK(sum.pair_offsets[0] >= 0 && sum.pair_offsets[sum.num_tokens] <= num_pairs)
      << "weighted_row_sum: offsets beyond the pairs";
  for (int32_t pair = sum.pair_offsets[0]; pair < sum.pair_offsets[sum.num_tokens]; ++pair) {
    checked_row(sum.row_of_pair[pair], sum.num_rows);
  }
}

}  // namespace

void gather_rows(const Tensor& x, const Tensor& row_index, Tensor& y) {
  const int64_t row_size = x.dim(1);
  const int32_t* rows = row_index.data<int32_t>();
  with_floats(x, [&](const auto* elements) {
    for (int64_t r = 0; r < row_index.dim(0); ++r) {
      const auto* source = elements + checked_row(rows[r], x.dim(0)) * row_size;
      float* target = y.row<float>(r);
      for (int64_t i = 0; i < row_size; ++i) target[i] = static_cast<float>(source[i]);
    }
  });
}

void weighted_row_sum(const WeightedSumInput& input, Tensor& y) {
  const WeightedSum sum{input.x.data<float>(),
                        input.x.dim(0),
                        input.x.dim(1),
                        input.row_of_pair.data<int32_t>(),
                        input.weights.data<float>(),
                        input.pair_offsets.data<int32_t>(),
                        input.pair_offsets.dim(0) - 1};
  check_pairs(sum, input.row_of_pair.dim(0));
  if (y.dtype() == DType::kF32) return run_on_best_isa<WeightedRowSumKernel>(sum, y.data<float>());
  // Rounded token by token through one row of FP32.
  std::vector<float> row(static_cast<size_t>(sum.row_size));
  for (int64_t token = 0; token < sum.num_tokens; ++token) {
    WeightedSum one = sum;
    one.pair_offsets += token;
    one.num_tokens = 1;
    run_on_best_isa<WeightedRowSumKernel>(one, row.data());
    bf16* target = y.row<bf16>(token);
    for (size_t i = 0; i < row.size(); ++i) target[i] = bf16(row[i]);
  }
}

void scatter_add_rows(const Tensor& x, const Tensor& row_index, Tensor& y) {
  const int64_t row_size = y.dim(1);
  const int32_t* rows = row_index.data<int32_t>();
  with_floats(x, [&](const auto* elements) {
    for (int64_t r = 0; r < row_index.dim(0); ++r) {
      float* target = y.row<float>(checked_row(rows[r], y.dim(0)));
      for (int64_t i = 0; i < row_size; ++i) target[i] += static_cast<float>(elements[r * row_size + i]);
    }
  });
}

}  // namespace skipper::cpu
