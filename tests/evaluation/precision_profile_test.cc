// What a precision profile is made of, part by part: samples of rows, errors of experts, and the fit of sums.
#include <gtest/gtest.h>

#include <cmath>

#include "evaluation/additive_fit.h"
#include "evaluation/expert_errors.h"
#include "evaluation/expert_samples.h"
#include "evaluation/precision_profiler.h"
#include "tensor/safetensors.h"

namespace skipper {
namespace {

// --- sums ---

TEST(AdditiveFit, KnowsPerfectUselessAndConstantPredictions) {
  const std::vector<double> measured = {1.0, 2.0, 3.0};
  EXPECT_DOUBLE_EQ(r_squared(measured, measured), 1.0);
  EXPECT_DOUBLE_EQ(r_squared(std::vector<double>{2.0, 2.0, 2.0}, measured), 0.0);
  EXPECT_LT(r_squared(std::vector<double>{3.0, 2.0, 1.0}, measured), 0.0);
  EXPECT_EQ(r_squared(std::vector<double>{1.0, 2.0}, std::vector<double>{5.0, 5.0}), 0.0);
  EXPECT_EQ(r_squared({}, {}), 0.0);
}

// --- samples ---

Tensor ints(const std::vector<int32_t>& values, const Shape& shape) {
  Tensor tensor = Tensor::empty(shape, DType::kI32);
  std::ranges::copy(values, tensor.data<int32_t>());
  return tensor;
}

Tensor floats(const std::vector<float>& values, const Shape& shape) {
  Tensor tensor = Tensor::empty(shape, DType::kF32);
  std::ranges::copy(values, tensor.data<float>());
  return tensor;
}

Tensor bytes(const std::vector<uint8_t>& values) {
  Tensor tensor = Tensor::empty({static_cast<int64_t>(values.size())}, DType::kU8);
  std::ranges::copy(values, tensor.data<uint8_t>());
  return tensor;
}

// Three tokens over three experts; token 1 has skipped both of its experts, so two rows are sent.
struct ThreeTokens {
  TokenPolicies policies;
  Routing kept;
  Tensor rows = floats({1, 1, 3, 3}, {2, 2});  // of tokens 0 and 2
  Tensor row_index = ints({0, 1, 1}, {3});     // expert 0: token 0; expert 2: token 2; expert 1: token 2
  Tensor row_offsets = ints({0, 1, 2, 3}, {4});
  std::vector<ExpertSlot> slots = {{0, {}}, {2, {}}, {1, {}}};

  ThreeTokens() {
    policies.token_class = bytes({0, 1, 1});
    policies.phase = bytes({0, 0, 1});
    kept.expert_ids = ints({0, kNoExpert, kNoExpert, kNoExpert, 1, 2}, {3, 2});
    kept.expert_weights = floats({0.75f, 0.25f, 0.5f, 0.5f, 0.625f, 0.375f}, {3, 2});
  }

  void show_to(ExpertSamples& samples) const {
    samples.see_routing(0, policies, kept);
    samples.see_inputs({MatrixInput::kGateUp, 0, rows, slots, &row_index, &row_offsets});
  }
};

TEST(ExpertSamples, PairRowsWithTheWeightsTheyWereRoutedBy) {
  ExpertSamples samples({.num_moe_layers = 1, .num_experts = 3, .rows_per_expert = 4});
  const ThreeTokens tokens;
  tokens.show_to(samples);
  EXPECT_EQ(samples.at(0, 0).gates, std::vector<float>{0.75f});
  EXPECT_EQ(samples.at(0, 0).rows, (std::vector<float>{1, 1}));
  EXPECT_EQ(samples.at(0, 1).gates, std::vector<float>{0.625f});
  EXPECT_EQ(samples.at(0, 2).gates, std::vector<float>{0.375f});
  EXPECT_EQ(samples.at(0, 2).rows, (std::vector<float>{3, 3}));
}

TEST(ExpertSamples, CountWhatSkippingLeftByClassAndPhase) {
  ExpertSamples samples({.num_moe_layers = 1, .num_experts = 3, .rows_per_expert = 4});
  const ThreeTokens tokens;
  tokens.show_to(samples);
  EXPECT_EQ(samples.num_tokens(), 3);
  EXPECT_EQ(samples.num_tokens(TokenClass::kVision, TokenPhase::kGenerated), 1);
  EXPECT_EQ(samples.num_pairs(0, 0, TokenClass::kText, TokenPhase::kPrompt), 1);
  EXPECT_EQ(samples.num_pairs(0, 2, TokenClass::kVision, TokenPhase::kGenerated), 1);
  EXPECT_EQ(samples.num_pairs(0, 0, TokenClass::kVision, TokenPhase::kPrompt), 0);
}

TEST(ExpertSamples, KeepOnlySomeOfManyRows) {
  ExpertSamples samples({.num_moe_layers = 1, .num_experts = 3, .rows_per_expert = 4});
  const ThreeTokens tokens;
  for (int i = 0; i < 50; ++i) tokens.show_to(samples);
  EXPECT_EQ(samples.at(0, 0).count(), 4);
  EXPECT_EQ(samples.at(0, 0).rows.size(), 8u);
  EXPECT_EQ(samples.at(0, 0).num_met, 50);
}

// --- errors ---

TEST(ExpertErrors, FallWithBitsAndAreZeroWithoutRows) {
  const std::filesystem::path model = std::filesystem::path(SKIPPER_SOURCE_DIR) / "models/demo";
  const ModelConfig config = load_model_config(model);
  const Checkpoint checkpoint(model);
  const WeightConfig formats;
  const int num_experts = static_cast<int>(config.moe.num_experts);
  ExpertSamples samples({config.num_moe_layers(), num_experts, 8});
  // Eight tokens for expert 3 and none for the others.
  constexpr int64_t kTokens = 8;
  TokenPolicies policies;
  policies.token_class = policies.phase = Tensor::zeros({kTokens}, DType::kU8);
  const Routing kept{ints(std::vector<int32_t>(kTokens, 3), {kTokens, 1}),
                     floats(std::vector<float>(kTokens, 0.5f), {kTokens, 1})};
  samples.see_routing(1, policies, kept);
  Tensor rows = Tensor::empty({kTokens, config.hidden_size}, DType::kF32);
  for (int64_t i = 0; i < rows.num_elements(); ++i) rows.data<float>()[i] = std::sin(static_cast<float>(i));
  std::vector<ExpertSlot> slots;
  std::vector<int32_t> offsets = {0}, index;
  for (int expert = 0; expert < num_experts; ++expert) {
    slots.push_back({expert, {}});
    offsets.push_back(expert < 3 ? 0 : static_cast<int32_t>(kTokens));
  }
  for (int32_t row = 0; row < kTokens; ++row) index.push_back(row);
  const Tensor row_index = ints(index, {kTokens}), row_offsets = ints(offsets, {num_experts + 1});
  samples.see_inputs({MatrixInput::kGateUp, 1, rows, slots, &row_index, &row_offsets});

  const std::vector<WeightFormat> measured = {
      {WeightKind::kInt2Asymmetric, 32}, {WeightKind::kInt4Asymmetric, 32}, {WeightKind::kInt8, 64}};
  Stream stream;
  const std::vector<ExpertErrors> errors = measure_expert_errors({checkpoint, config, formats}, 1, samples, measured, stream);
  ASSERT_EQ(errors.size(), static_cast<size_t>(num_experts));
  EXPECT_GT(errors[3].output, errors[3].error[0]);
  EXPECT_GT(errors[3].error[0], 4 * errors[3].error[1]);
  EXPECT_GT(errors[3].error[1], 4 * errors[3].error[2]);
  EXPECT_GT(errors[3].error[2], 0.0);
  EXPECT_EQ(errors[4].error, (std::vector<double>{0.0, 0.0, 0.0}));
}

// --- groups ---

TEST(GroupsOfLayer, HoldEveryExpertOnceWithAlikeErrors) {
  LayerSensitivity layer;
  for (const double error : {3.0, 100.0, 1.0, 90.0, 2.0}) layer.experts.push_back({.use = {}, .error = {0.0, error}});
  EXPECT_EQ(groups_of_layer(layer, 1, 2), (std::vector<std::vector<int32_t>>{{1, 3, 0}, {4, 2}}));
  EXPECT_EQ(groups_of_layer(layer, 1, 1).front().size(), 5u);
  EXPECT_EQ(groups_of_layer(layer, 1, 5), (std::vector<std::vector<int32_t>>{{1}, {3}, {0}, {4}, {2}}));
}

// --- random plans ---

TEST(RandomFormats, DifferFromSeedToSeedAndNotFromCallToCall) {
  ModelConfig config = load_model_config(std::filesystem::path(SKIPPER_SOURCE_DIR) / "models/demo");
  const std::vector<WeightFormat> formats = {{WeightKind::kInt4, 64}, {WeightKind::kInt8, 64}};
  EXPECT_EQ(random_formats(config, formats, 1), random_formats(config, formats, 1));
  EXPECT_NE(random_formats(config, formats, 1), random_formats(config, formats, 2));
  int num_bf16 = 0, num_int4 = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    for (const auto& layer : random_formats(config, formats, seed)) {
      num_bf16 += static_cast<int>(std::ranges::count(layer, WeightFormat{}));
      num_int4 += static_cast<int>(std::ranges::count(layer, formats[0]));
    }
  }
  const int all = 10 * config.num_moe_layers() * static_cast<int>(config.moe.num_experts);
  EXPECT_GT(num_bf16, all / 10);
  EXPECT_GT(num_int4, all / 10);
  EXPECT_LT(num_bf16 + num_int4, all);
}

}  // namespace
}  // namespace skipper
