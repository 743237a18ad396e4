#include "kernels/top_k_softmax.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

using testing::ElementsAre;
using testing::FloatEq;

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

Routed route(const std::vector<float>& logits, int64_t k, TopKNormalization normalization) {
  Stream stream;
  const Tensor input = Tensor::borrow_const(logits.data(), {1, static_cast<int64_t>(logits.size())}, DType::kF32);
  Tensor ids = Tensor::empty({1, k}, DType::kI32), weights = Tensor::empty({1, k}, DType::kF32);
  top_k_softmax(input, normalization, ids, weights, stream);
  return {{ids.data<int32_t>(), ids.data<int32_t>() + k}, {weights.data<float>(), weights.data<float>() + k}};
}

class TopKSoftmaxTest : public testing::TestWithParam<TopKNormalization> {};

TEST_P(TopKSoftmaxTest, EqualsSoftmaxThenSort) {
  Stream stream;
  for (const auto& [tokens, experts, k] : {std::tuple{0, 4, 2}, {1, 1, 1}, {3, 16, 16}, {5, 17, 3}, {7, 128, 8}, {2, 5, 0}}) {
    const Tensor logits = random_tensor({tokens, experts}, DType::kF32, 1);
    Tensor ids = Tensor::empty({tokens, k}, DType::kI32), weights = Tensor::empty({tokens, k}, DType::kF32);
    top_k_softmax(logits, GetParam(), ids, weights, stream);
    std::vector<double> expected;
    for (int64_t t = 0; t < tokens; ++t) {
      const float* row = logits.row<float>(t);
      std::vector<int32_t> order(static_cast<size_t>(experts));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [row](int32_t a, int32_t b) { return row[a] > row[b]; });
      const size_t terms = GetParam() == TopKNormalization::kNone ? order.size() : static_cast<size_t>(k);
      double total = 0;
      for (size_t i = 0; i < terms; ++i) total += std::exp(double{row[order[i]]});
      for (int64_t j = 0; j < k; ++j) {
        EXPECT_EQ(ids.row<int32_t>(t)[j], order[static_cast<size_t>(j)]);
        expected.push_back(std::exp(double{row[order[static_cast<size_t>(j)]]}) / total);
      }
    }
    expect_close(weights, expected, 1e-6);
  }
}

TEST_P(TopKSoftmaxTest, GivesTiesToTheLowerId) {
  EXPECT_THAT(route({1, 2, 2, 1, 2}, 4, GetParam()).ids, ElementsAre(1, 2, 4, 0));
  EXPECT_THAT(route(std::vector<float>(40, 0.5f), 3, GetParam()).ids, ElementsAre(0, 1, 2));
}

TEST_P(TopKSoftmaxTest, RanksNanBelowEveryNumber) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Routed routed = route({NAN, -infinity, 0.0f, NAN, 1.0f}, 5, GetParam());
  EXPECT_THAT(routed.ids, ElementsAre(4, 2, 1, 0, 3));
  EXPECT_NEAR(routed.weights[0] + routed.weights[1], 1.0f, 1e-6);
  for (size_t j = 2; j < 5; ++j) EXPECT_EQ(routed.weights[j], 0.0f);
}

TEST_P(TopKSoftmaxTest, StaysFiniteForInfiniteAndNanLogits) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_THAT(route({0, infinity, infinity}, 2, GetParam()).weights, ElementsAre(FloatEq(0.5f), FloatEq(0.5f)));
  EXPECT_THAT(route({NAN, NAN}, 2, GetParam()).weights, ElementsAre(FloatEq(0.5f), FloatEq(0.5f)));
  EXPECT_THAT(route({-infinity, 3.4e38f}, 1, GetParam()).weights, ElementsAre(1.0f));
}

TEST_P(TopKSoftmaxTest, TokenHasTheSameBitsAloneAndAmongOthers) {
  Stream stream;
  const Tensor logits = random_tensor({9, 37}, DType::kF32, 2);
  Tensor ids = Tensor::empty({9, 4}, DType::kI32), weights = Tensor::empty({9, 4}, DType::kF32);
  top_k_softmax(logits, GetParam(), ids, weights, stream);
  Tensor one_id = Tensor::empty({1, 4}, DType::kI32), one_weight = Tensor::empty({1, 4}, DType::kF32);
  for (int64_t t = 0; t < 9; ++t) {
    top_k_softmax(logits.slice(t, t + 1), GetParam(), one_id, one_weight, stream);
    EXPECT_TRUE(same_bits(one_id, ids.slice(t, t + 1)) && same_bits(one_weight, weights.slice(t, t + 1)));
  }
}

TEST_P(TopKSoftmaxTest, ChoosesAsASortDoesAmongTiesNansAndInfinitiesInEveryBlock) {
  Stream stream;
  const float kinds[] = {NAN, -NAN, -INFINITY, -1.0f, -0.0f, 0.0f, 1e-40f, 2.0f, 3.4e38f};
  std::mt19937 generator(3);
  for (const int64_t experts : {1, 63, 64, 65, 191, 512}) {
    Tensor logits = Tensor::empty({20, experts}, DType::kF32);
    for (float& logit : logits.span<float>()) logit = kinds[generator() % std::size(kinds)];
    Tensor ids = Tensor::empty({20, experts}, DType::kI32), weights = Tensor::empty({20, experts}, DType::kF32);
    top_k_softmax(logits, GetParam(), ids, weights, stream);
    for (int64_t t = 0; t < 20; ++t) {
      const float* row = logits.row<float>(t);
      std::vector<int32_t> order(static_cast<size_t>(experts));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [row](int32_t a, int32_t b) {
        return std::isnan(row[b]) ? !std::isnan(row[a]) : row[a] > row[b];
      });
      EXPECT_THAT(std::vector(ids.row<int32_t>(t), ids.row<int32_t>(t) + experts), testing::ElementsAreArray(order));
    }
  }
}

TEST_P(TopKSoftmaxTest, HasTheSameBitsOnAnyNumberOfThreads) {
  const Tensor logits = random_tensor({307, 131}, DType::kF32, 4);
  expect_same_bits_on_any_number_of_threads([&](Stream& stream) {
    Tensor ids = Tensor::empty({307, 7}, DType::kI32), weights = Tensor::empty({307, 7}, DType::kF32);
    top_k_softmax(logits, GetParam(), ids, weights, stream);
    return weights;
  });
}

INSTANTIATE_TEST_SUITE_P(Normalizations, TopKSoftmaxTest,
                         testing::Values(TopKNormalization::kNone, TopKNormalization::kSumToOne));

}  // namespace
}  // namespace skipper
