#include "evaluation/expert_rater.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>
#include <random>

#include "base/error.h"
#include "evaluation/expert_inputs.h"
#include "evaluation/expert_ratings.h"
#include "evaluation/frontier_file.h"
#include "experts/gate_up_panels.h"
#include "tests/support/moe_reference.h"

namespace skipper {
namespace {

using ::testing::Each;
using ::testing::FloatNear;
using ::testing::HasSubstr;

constexpr MoeShape kShape{.hidden_size = 24, .intermediate_size = 10, .num_experts = 5, .top_k = 2};

ExpertStore store_of(const MoeWeights& weights) {
  const int64_t width = kShape.intermediate_size;
  ExpertStoreConfig config{.hidden_size = kShape.hidden_size,
                           .intermediate_size = width,
                           .slots = {{}},
                           .bf16_activations = ActivationFormat::kF32};
  for (int32_t e = 0; e < kShape.num_experts; ++e) config.slots[0].push_back({e, {}});
  ExpertStore store(config);
  for (int e = 0; e < kShape.num_experts; ++e) {
    ExpertMatrices target = store.matrices(0, e);
    pack_gate_up(weights.gate_up.at(e).slice(0, width), weights.gate_up.at(e).slice(width, 2 * width), target.gate_up);
    pack_into(weights.down.at(e), target.down);
  }
  store.freeze();
  return store;
}

Tensor random_floats(const Shape& shape, uint32_t seed) {
  Tensor tensor = Tensor::empty(shape, DType::kF32);
  std::mt19937 generator(seed);
  for (float& value : tensor.span<float>()) value = std::normal_distribution<float>()(generator);
  return tensor;
}

RatedLayer layer_of(uint32_t seed) {
  RatedLayer layer{.moe_layer = 0, .norm = random_floats({kShape.hidden_size}, seed),
                   .router = random_floats({kShape.num_experts, kShape.hidden_size}, seed + 1)};
  for (float& value : layer.norm.span<float>()) value = 1.0f + 0.1f * value;
  return layer;
}

void scale(Tensor& tensor, int64_t expert, float factor) {
  Tensor part = tensor.at(expert);
  for (bf16& value : part.span<bf16>()) value = bf16(static_cast<float>(value) * factor);
}

void copy_expert(Tensor& tensor, int64_t from, int64_t to) {
  std::memcpy(tensor.at(to).bytes(), tensor.at(from).bytes(), tensor.at(from).num_bytes());
}

LayerRatings rate(const MoeWeights& weights, const RatedLayer& layer, const Tensor& rows) {
  const ExpertStore store = store_of(weights);
  Stream stream;
  return ExpertRater(store, stream).rate(layer, rows);
}

double mean_of(const std::vector<float>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

TEST(ExpertRater, AnExpertWithTwiceTheOutputIsRatedTwice) {
  MoeWeights weights = random_moe_weights(kShape, 1);
  const LayerRatings before = rate(weights, layer_of(2), random_floats({17, kShape.hidden_size}, 3));
  scale(weights.down, 3, 2.0f);
  const LayerRatings after = rate(weights, layer_of(2), random_floats({17, kShape.hidden_size}, 3));
  for (const auto& [one, other] : {std::pair{&before.capacity, &after.capacity}, std::pair{&before.response, &after.response}}) {
    EXPECT_NEAR(mean_of(*one), 1.0, 1e-5);
    EXPECT_NEAR(mean_of(*other), 1.0, 1e-5);
    EXPECT_NEAR((*other)[3] / (*other)[0], 2.0f * (*one)[3] / (*one)[0], 1e-4);
    EXPECT_NEAR((*other)[4] / (*other)[0], (*one)[4] / (*one)[0], 1e-4);
  }
  for (size_t i = 0; i < 25; ++i) EXPECT_NEAR(after.similarity[i], before.similarity[i], 1e-4) << "size is no unlikeness";
}

TEST(ExpertRater, ResponsesAreToTheRowThatTheRouterPrefersTheExpertFor) {
  const MoeWeights weights = random_moe_weights(kShape, 5);
  const RatedLayer layer = layer_of(6);
  const LayerRatings found = rate(weights, layer, random_floats({9, kShape.hidden_size}, 7));
  const auto width = static_cast<size_t>(kShape.hidden_size);
  std::vector<double> lengths;
  for (int32_t e = 0; e < kShape.num_experts; ++e) {
    std::vector<double> direction(width);
    double squares = 0.0;
    for (size_t i = 0; i < width; ++i) {
      double mean = 0.0;
      for (int64_t f = 0; f < kShape.num_experts; ++f) mean += double{layer.router.row<float>(f)[i]};
      mean /= static_cast<double>(kShape.num_experts);
      direction[i] = double{layer.norm.data<float>()[i]} * (double{layer.router.row<float>(e)[i]} - mean);
      squares += direction[i] * direction[i];
    }
    std::vector<float> row(width);
    for (size_t i = 0; i < width; ++i) {
      row[i] = layer.norm.data<float>()[i] * static_cast<float>(direction[i] * std::sqrt(static_cast<double>(width) / squares));
    }
    double length = 0.0;
    for (const double value : reference_expert(weights, e, row)) length += value * value;
    lengths.push_back(std::sqrt(length));
  }
  const double mean = std::accumulate(lengths.begin(), lengths.end(), 0.0) / static_cast<double>(lengths.size());
  for (size_t e = 0; e < lengths.size(); ++e) EXPECT_NEAR(double{found.response[e]}, lengths[e] / mean, 1e-3);
}

TEST(ExpertRater, TwinsAreAsAlikeAsAnExpertIsToItself) {
  MoeWeights weights = random_moe_weights(kShape, 9);
  for (Tensor* matrix : {&weights.gate_up, &weights.down}) copy_expert(*matrix, 1, 4);
  scale(weights.down, 4, -0.5f);
  const std::vector<float> found = rate(weights, layer_of(10), random_floats({40, kShape.hidden_size}, 11)).similarity;
  const auto at = [&](size_t e, size_t f) { return found[e * 5 + f]; };
  double sum = 0.0;
  for (size_t e = 0; e < 5; ++e) {
    for (size_t f = 0; f < 5; ++f) {
      EXPECT_EQ(at(e, f), at(f, e));
      EXPECT_LE(at(e, f), at(e, e) * 1.0001f);
      if (e != f) sum += double{at(e, f)};
    }
  }
  EXPECT_NEAR(sum / 20, 1.0, 1e-5);
  EXPECT_NEAR(at(1, 4), at(1, 1), 1e-4);
  EXPECT_LT(at(1, 2), 0.9f * at(1, 1));
}

TEST(ExpertRater, ExpertsThatSayNothingAreAlikeAndEqual) {
  MoeWeights weights = random_moe_weights(kShape, 13);
  std::memset(weights.down.bytes(), 0, weights.down.num_bytes());
  const LayerRatings found = rate(weights, layer_of(14), random_floats({6, kShape.hidden_size}, 15));
  EXPECT_THAT(found.capacity, Each(1.0f));
  EXPECT_THAT(found.response, Each(1.0f));
  EXPECT_THAT(found.similarity, Each(1.0f));
}

Routing routing_of(const std::vector<float>& weights) {
  const auto num_tokens = static_cast<int64_t>(weights.size() / 2);
  Routing routing{Tensor::zeros({num_tokens, 2}, DType::kI32), Tensor::empty({num_tokens, 2}, DType::kF32)};
  std::ranges::copy(weights, routing.expert_weights.span<float>().begin());
  return routing;
}

TEST(ExpertInputs, KeepsRowsOfExpertsAloneAndNoMoreThanAsked) {
  ExpertInputs inputs(2, 7);
  const Tensor rows = random_floats({5, 3}, 1);
  const std::vector<ExpertSlot> slots(1);
  inputs.add({MatrixInput::kGateUp, 1, rows});  // of a dense layer
  inputs.add({MatrixInput::kDown, 1, rows, slots});
  EXPECT_EQ(inputs.rows(1).dim(0), 0);
  inputs.add({MatrixInput::kGateUp, 1, rows, slots});
  ASSERT_EQ(inputs.rows(1).dim(0), 5);
  EXPECT_TRUE(std::ranges::equal(inputs.rows(1).span<float>(), rows.span<float>()));
  for (int i = 0; i < 20; ++i) inputs.add({MatrixInput::kGateUp, 1, rows, slots});
  EXPECT_EQ(inputs.rows(1).dim(0), 7);
  EXPECT_EQ(inputs.rows(0).dim(0), 0);
}

TEST(ExpertInputs, SecondSharesAreMediansOfEachClass) {
  ExpertInputs inputs(1, 7);
  TokenPolicies policies = TokenPolicies::defaults(4);
  policies.token_class.data<uint8_t>()[3] = static_cast<uint8_t>(TokenClass::kProtected);
  EXPECT_TRUE(inputs.second_shares(TokenClass::kText).empty());
  inputs.add_shares(0, policies, routing_of({0.8f, 0.2f, 0.5f, 0.5f, 0.6f, 0.3f, 1.0f, 0.0f}));
  EXPECT_THAT(inputs.second_shares(TokenClass::kText), Each(FloatNear(0.5f, 1e-6f)));
  EXPECT_TRUE(inputs.second_shares(TokenClass::kVision).empty());
}

ExpertRatings some_ratings() {
  ExpertRatings ratings{.model_fingerprint = "abc", .data = "samples", .num_rows = 9, .num_moe_layers = 2, .num_experts = 2};
  ratings.capacity = {0.5f, 1.5f, 1.25f, 0.75f};
  ratings.response = {1.0f, 1.0f, 0.5f, 1.5f};
  ratings.similarity = {2.0f, 1.0f, 1.0f, 2.0f, 3.5f, 1.0f, 1.0f, 3.5f};
  ratings.second_share = {std::vector{0.5f, 0.25f}, std::vector{0.75f, 0.125f}};
  return ratings;
}

std::filesystem::path written(const std::string& text) {
  const auto path = std::filesystem::path(testing::TempDir()) / "expert_ratings_test.json";
  std::ofstream(path) << text;
  return path;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  CHECK(text.find(from) != std::string::npos) << from;
  return text.replace(text.find(from), from.size(), to);
}

TEST(ExpertRatings, AreReadBackAsTheyWereWritten) {
  const ExpertRatings ratings = some_ratings();
  const ExpertRatings found = load_expert_ratings(written(to_json(ratings)), {"abc", 2, 2});
  EXPECT_EQ(found.capacity, ratings.capacity);
  EXPECT_EQ(found.response, ratings.response);
  EXPECT_EQ(found.similarity, ratings.similarity);
  EXPECT_EQ(found.second_share, ratings.second_share);
  EXPECT_EQ(found.num_rows, 9);
  EXPECT_EQ(found.scale(), (std::vector{1.0f, 1.5f, 1.25f, 1.5f})) << "low by both views, or not low";
}

TEST(ExpertRatings, OfAnotherModelOrSizeOrWithBadNumbersAreRefusedInOneLine) {
  const std::string good = to_json(some_ratings());
  const auto error_of = [](const std::string& text, const ModelIdentity& model) {
    try {
      load_expert_ratings(written(text), model);
    } catch (const InvalidFile& error) {
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  EXPECT_THAT(error_of(good, {"def", 2, 2}), HasSubstr("made for model abc but the loaded model is def"));
  EXPECT_THAT(error_of(good, {"abc", 3, 2}), HasSubstr("capacity: has 4 numbers where the model needs 6"));
  EXPECT_THAT(error_of(good, {"abc", 2, 3}), HasSubstr("capacity: has 4 numbers where the model needs 6"));
  EXPECT_THAT(error_of(replaced(good, "[0.5,1.5,", "[-0.5,1.5,"), {"abc", 2, 2}),
              HasSubstr("capacity: -0.5 is not a number from 0"));
  EXPECT_THAT(error_of(replaced(good, "[0.5,0.25]", "[0.5]"), {"abc", 2, 2}), HasSubstr("second_share: text: has 1 numbers"));
  EXPECT_THAT(error_of(replaced(good, "\"rows\"", "\"row\""), {"abc", 2, 2}), HasSubstr("rows: is missing"));
}

}  // namespace
}  // namespace skipper
