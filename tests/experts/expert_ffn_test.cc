#include "experts/expert_ffn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "tests/support/moe_reference.h"

namespace skipper {
namespace {

ExpertStore store_of(const MoeWeights& weights) {
  ExpertStoreConfig config{.hidden_size = weights.shape.hidden_size,
                           .intermediate_size = weights.shape.intermediate_size,
                           .experts = {{}}};
  for (int32_t e = 0; e < weights.shape.num_experts; ++e) config.experts[0].push_back(e);
  ExpertStore store(config);
  for (int e = 0; e < weights.shape.num_experts; ++e) {
    std::memcpy(store.gate_up(0, e).bytes(), weights.gate_up.at(e).bytes(), weights.gate_up.at(e).num_bytes());
    std::memcpy(store.down(0, e).bytes(), weights.down.at(e).bytes(), weights.down.at(e).num_bytes());
  }
  store.freeze();
  return store;
}

// rows_per_expert rows, each of a random token.
ExpertBatch random_rows(int64_t num_tokens, int64_t hidden_size, const std::vector<int32_t>& rows_per_expert) {
  std::mt19937 generator(7);
  ExpertBatch batch;
  batch.tokens = Tensor::empty({num_tokens, hidden_size}, DType::kF32);
  for (float& value : batch.tokens.span<float>()) value = std::normal_distribution<float>()(generator);
  batch.row_offsets = Tensor::zeros({static_cast<int64_t>(rows_per_expert.size()) + 1}, DType::kI32);
  for (size_t e = 0; e < rows_per_expert.size(); ++e) {
    batch.row_offsets.data<int32_t>()[e + 1] = batch.row_offsets.data<int32_t>()[e] + rows_per_expert[e];
  }
  batch.row_index = Tensor::empty({batch.row_offsets.span<int32_t>().back()}, DType::kI32);
  for (int32_t& token : batch.row_index.span<int32_t>()) {
    token = static_cast<int32_t>(generator() % static_cast<uint32_t>(num_tokens));
  }
  return batch;
}

Tensor forward(const ExpertStore& store, const ExpertBatch& batch, int64_t max_rows_per_pass) {
  ExpertScratch scratch(store, max_rows_per_pass);
  Tensor out = Tensor::empty({batch.row_index.num_elements(), store.hidden_size()}, DType::kF32);
  Stream stream;
  ExpertFfn(store).forward(0, batch, scratch, out, stream);
  return out;
}

TEST(ExpertFfn, ComputesEachRowWithItsExpert) {
  const MoeWeights weights = random_moe_weights({.hidden_size = 37, .intermediate_size = 11, .num_experts = 5}, 1);
  const ExpertStore store = store_of(weights);
  const ExpertBatch batch = random_rows(9, 37, {3, 0, 1, 17, 2});
  const Tensor out = forward(store, batch, 64);
  const int32_t* offsets = batch.row_offsets.data<int32_t>();
  for (int32_t e = 0; e < 5; ++e) {
    for (int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
      const Tensor x = batch.tokens.at(batch.row_index.data<int32_t>()[r]);
      const auto expected = reference_expert(weights, e, x.span<float>());
      for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(out.row<float>(r)[i], expected[i], 1e-4);
    }
  }
}

TEST(ExpertFfn, GivesTheSameBitsForAnySizeOfPass) {
  const MoeWeights weights = random_moe_weights({.hidden_size = 16, .intermediate_size = 8, .num_experts = 4}, 2);
  const ExpertStore store = store_of(weights);
  const ExpertBatch batch = random_rows(9, 16, {5, 13, 0, 5});
  const Tensor whole = forward(store, batch, 23);
  for (const int64_t rows : {1, 2, 7, 22, 1000}) {
    EXPECT_TRUE(std::ranges::equal(forward(store, batch, rows).span<float>(), whole.span<float>())) << rows;
  }
}

TEST(ExpertFfn, TakesNoRows) {
  const MoeWeights weights = random_moe_weights({.num_experts = 3}, 3);
  EXPECT_EQ(forward(store_of(weights), random_rows(1, 16, {0, 0, 0}), 4).dim(0), 0);
}

TEST(ExpertFfn, TakesNoExperts) {
  ExpertStore store({.hidden_size = 4, .intermediate_size = 2, .experts = {{}}});
  store.freeze();
  EXPECT_EQ(forward(store, random_rows(1, 4, {}), 4).dim(0), 0);
}

}  // namespace
}  // namespace skipper
