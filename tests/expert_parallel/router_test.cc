#include "expert_parallel/router.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/expert_parallel/moe_run.h"
#include "tests/support/moe_reference.h"

namespace skipper {
namespace {

struct Routed {
  TokenBatch batch;
  Routing routing;
};

Routed route(const MoeWeights& weights, size_t num_tokens, TopKNormalization normalization) {
  const MoeShape& shape = weights.shape;
  Routed result{.batch = random_batch(num_tokens, shape, 1, 5), .routing = {}};
  Tensor hidden = Tensor::empty({static_cast<int64_t>(num_tokens), shape.hidden_size}, DType::kF32);
  std::copy(result.batch.hidden.begin(), result.batch.hidden.end(), hidden.data<float>());
  RouterBuffers buffers(static_cast<int64_t>(num_tokens) + 3, shape.num_experts, shape.top_k);
  Stream stream;
  result.routing =
      Router(pack_router(weights.router), {.top_k = shape.top_k, .normalization = normalization}).route(hidden, buffers, stream);
  return result;
}

class RouterSizes : public ::testing::TestWithParam<MoeShape> {};

TEST_P(RouterSizes, ChoosesTheExpertsAndWeightsOfTheDefinition) {
  const MoeWeights weights = random_moe_weights(GetParam(), 3);
  const Routed routed = route(weights, 13, TopKNormalization::kSumToOne);
  for (size_t t = 0; t < routed.batch.size(); ++t) {
    const auto expected = reference_routing(weights, routed.batch.row(t));
    for (size_t j = 0; j < expected.size(); ++j) {
      EXPECT_EQ(routed.routing.expert_ids.row<int32_t>(static_cast<int64_t>(t))[j], expected[j].expert);
      EXPECT_NEAR(routed.routing.expert_weights.row<float>(static_cast<int64_t>(t))[j], expected[j].weight, 1e-5);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, RouterSizes,
                         ::testing::Values(MoeShape{1, 1, 1, 1}, MoeShape{33, 4, 7, 1}, MoeShape{16, 4, 8, 2},
                                           MoeShape{64, 4, 32, 4}, MoeShape{16, 4, 5, 5}));

TEST(Router, LeavesProbabilitiesUnscaledWithoutNormalization) {
  const MoeWeights weights = random_moe_weights({}, 3);
  const Routed routed = route(weights, 6, TopKNormalization::kNone);
  for (int64_t t = 0; t < 6; ++t) {
    const float* row = routed.routing.expert_weights.row<float>(t);
    EXPECT_LT(row[0] + row[1], 0.999f);
    const auto expected = reference_routing(weights, routed.batch.row(static_cast<size_t>(t)));
    EXPECT_NEAR(row[0] / (row[0] + row[1]), expected[0].weight, 1e-5);
  }
}

TEST(Router, RoutesNoTokens) {
  const MoeWeights weights = random_moe_weights({}, 3);
  EXPECT_EQ(route(weights, 0, TopKNormalization::kSumToOne).routing.expert_ids.dim(0), 0);
}

}  // namespace
}  // namespace skipper
