#include "guard/reference_experts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/weight_format.h"
#include "tests/support/moe_reference.h"

namespace skipper {
namespace {

constexpr int kNumExperts = 5;
constexpr int64_t kHidden = 64;
constexpr int64_t kWidth = 48;

ExpertStore empty_store(const WeightFormat& format, int num_experts = kNumExperts) {
  ExpertStoreConfig config{.hidden_size = kHidden, .intermediate_size = kWidth, .slots = {{}}};
  for (int32_t e = 0; e < num_experts; ++e) config.slots[0].push_back({e, format});
  return ExpertStore(config);
}

Tensor random_matrix(int64_t rows, int64_t columns, int seed) {
  Tensor matrix = Tensor::empty({rows, columns}, DType::kF32);
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (float& x : matrix.span<float>()) x = 0.1f * std::normal_distribution<float>()(random);
  return matrix;
}

// The same experts in every store, but for the factor of expert 3's outputs.
ExpertStore filled_store(const WeightFormat& format, float factor_of_third = 1.0f) {
  ExpertStore store = empty_store(format);
  for (int e = 0; e < kNumExperts; ++e) {
    ExpertMatrices target = store.matrices(0, e);
    pack_gate_up(random_matrix(kWidth, kHidden, 3 * e), random_matrix(kWidth, kHidden, 3 * e + 1), target.gate_up);
    Tensor down = random_matrix(kHidden, kWidth, 3 * e + 2);
    for (float& x : down.span<float>()) x *= e == 3 ? factor_of_third : 1.0f;
    pack_into(down, target.down);
  }
  store.freeze();
  return store;
}

ExpertBatch batch_of(const std::vector<int32_t>& rows_per_expert) {
  ExpertBatch batch;
  batch.row_offsets = Tensor::zeros({static_cast<int64_t>(rows_per_expert.size()) + 1}, DType::kI32);
  for (size_t e = 0; e < rows_per_expert.size(); ++e) {
    batch.row_offsets.data<int32_t>()[e + 1] = batch.row_offsets.data<int32_t>()[e] + rows_per_expert[e];
  }
  const int64_t num_rows = batch.row_offsets.span<int32_t>().back();
  batch.tokens = Tensor::empty({num_rows, kHidden}, DType::kF32);
  std::mt19937 random(11);
  for (float& x : batch.tokens.span<float>()) x = std::normal_distribution<float>()(random);
  batch.row_index = Tensor::empty({num_rows}, DType::kI32);
  for (int32_t row = 0; row < num_rows; ++row) batch.row_index.data<int32_t>()[row] = static_cast<int32_t>(num_rows) - 1 - row;
  return batch;
}

// Of the only layer.
double known_error(const ExpertStore& reference, const WeightFormat& format) {
  Stream stream;
  RatioSums sums;
  if (format == WeightFormat{}) return 0.0;
  for (int e = 0; e < kProbedExperts; ++e) sums += rounding_error(reference, 0, e, format, stream);
  return relative_error(sums);
}

struct Observed {
  GuardReading reading;
  double known = 0.0;
};

Observed observe(const ExpertStore& served, const GuardConfig& config, const std::vector<int32_t>& rows_per_expert,
                 int num_steps = 1) {
  Stream stream;
  ExpertStore reference = filled_store({});
  const WeightFormat format = served.slots(0).front().format;
  const double known = known_error(reference, format);
  ReferenceExperts guard(std::move(reference), config);
  guard.learn({{{name_of(format), known}}});
  guard.serve(served);
  const ExpertBatch batch = batch_of(rows_per_expert);
  ExpertScratch scratch(served, 512);
  Tensor out = Tensor::empty({batch.row_index.num_elements(), kHidden}, DType::kF32);
  ExpertFfn(served).forward(0, batch, scratch, out, stream);
  for (int step = 0; step < num_steps; ++step) guard.observe(0, batch, out, stream);
  return {guard.reading(), known};
}

TEST(ReferenceExperts, TheSameExpertsHaveNoError) {
  const GuardReading reading = observe(filled_store({}), {.share = 1.0, .min_rows = 2}, {3, 0, 7, 5, 1}).reading;
  EXPECT_EQ(reading.relative_error, 0.0);
  EXPECT_EQ(reading.num_rows_so_far, 16);
  EXPECT_EQ(reading.error_so_far, 0.0);
  EXPECT_GT(reading.output_so_far, 0.0);
}

TEST(ReferenceExperts, KnowsWhatEachFormatCostsFromTheWeightsAlone) {
  double last = 0.0;
  for (const char* name : {"bf16", "int8-g32", "int4a-g32", "int3a-g32", "int2a-g32"}) {
    const WeightFormat format = parse_weight_format(name, "test");
    const Observed found = observe(filled_store(format), {.share = 1.0, .min_rows = 8}, {16, 16, 16, 16, 16});
    const double known = found.known;
    if (format.is_integer()) {
      EXPECT_GT(known, last) << name;
    } else {
      EXPECT_EQ(known, 0.0);
    }
    EXPECT_LT(found.reading.relative_error, std::max(1.5 * known, 1e-9)) << name;
    EXPECT_LE(found.reading.excess(), 1.0) << name;
    last = known;
  }
}

TEST(ReferenceExperts, FindsTheExpertWhoseScalesAreWrong) {
  for (const char* name : {"bf16", "int8-g32", "int4a-g32", "int3a-g32"}) {
    const ExpertStore served = filled_store(parse_weight_format(name, "test"), 1.5f);
    const GuardReading reading = observe(served, {.share = 1.0, .min_rows = 8}, {16, 16, 16, 16, 16}).reading;
    EXPECT_EQ(reading.expert, 3) << name;
    EXPECT_GT(reading.excess(), 1.0) << name;
    EXPECT_NEAR(reading.relative_error, 0.5, 0.2) << name;
    EXPECT_EQ(reading.num_rows, 16) << name;
  }
}

TEST(ReferenceExperts, JudgesNoExpertWithTooFewRows) {
  const ExpertStore served = filled_store({}, 1.5f);
  const GuardReading reading = observe(served, {.share = 1.0, .min_rows = 8}, {16, 16, 16, 7, 16}).reading;
  EXPECT_NE(reading.expert, 3);
  EXPECT_FALSE(observe(served, {.share = 1.0, .min_rows = 8}, {0, 0, 0, 0, 0}).reading.has_expert());
}

TEST(ReferenceExperts, ComputesAboutTheShareOfRowsAgain) {
  const GuardReading reading = observe(filled_store({}), {.share = 0.05}, {20, 30, 10, 25, 15}, 400).reading;
  EXPECT_NEAR(static_cast<double>(reading.num_rows_so_far), 0.05 * 100 * 400, 200);
}

TEST(ReferenceExperts, NeverComputesMoreRowsOfALayerThanItHasRoomFor) {
  const GuardReading reading = observe(filled_store({}), {.share = 1.0}, {100, 100, 100, 100, 101}).reading;
  EXPECT_EQ(reading.num_rows_so_far, 256);
}

TEST(ReferenceExperts, ForgetsWhatTheLastWeightsDid) {
  Stream stream;
  ReferenceExperts guard(filled_store({}), {.share = 1.0, .min_rows = 2});
  guard.learn({{{"bf16", 0.0}}});
  guard.serve(filled_store({}));
  const ExpertBatch batch = batch_of({4, 4, 4, 4, 4});
  Tensor wrong = Tensor::zeros({20, kHidden}, DType::kF32);
  guard.observe(0, batch, wrong, stream);
  EXPECT_GT(guard.reading().excess(), 1.0);
  guard.forget();
  EXPECT_FALSE(guard.reading().has_expert());
}

}  // namespace
}  // namespace skipper
