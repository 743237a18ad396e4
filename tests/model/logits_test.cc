// Logits against transformers, and bits that must not depend on batching, chunking or ranks.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iostream>
#include <tuple>

#include "base/error.h"
#include "tests/model/prompt_fixture.h"
#include "tests/model/sequence_runner.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

const RunFormats kFp32{
    .kv = DType::kF32, .rows = {PayloadFormat::kF32, DType::kF32}, .weights = {{}, {}, DType::kF32}, .num_threads = 1};
const RunFormats kDefault{.num_threads = 2};

// Over all recorded positions of a file.
struct Comparison {
  float logit_range = 0.0f;
  float max_error = 0.0f;
  float max_clear_error = 0.0f;  // where no expert choice is a near tie
  float max_bf16_error = 0.0f;   // transformers' own
  double unclear_kl = 0.0;       // sums over positions, nats
  double kl = 0.0;
  double bf16_kl = 0.0;          // transformers' own
  double added_nll = 0.0;        // of the prompts' next tokens, over FP32's
  int64_t num_positions = 0;
  int64_t num_unclear = 0;
  int64_t num_far = 0;           // error above 2 % of the prompt's logit range
  int64_t num_bf16_far = 0;      // transformers' own
};

// Nearer than this, the last expert chosen and the first left out are a tie that rounding may turn.
constexpr float kRouterMarginEpsilon = 1e-4f;
constexpr float kLargestShareOfRange = 0.02f;

double kl_divergence(const float* reference, const float* logits, int64_t size) {
  const auto log_sum = [size](const float* values) {
    const double highest = *std::max_element(values, values + size);
    double sum = 0.0;
    for (int64_t i = 0; i < size; ++i) sum += std::exp(values[i] - highest);
    return highest + std::log(sum);
  };
  const double reference_sum = log_sum(reference);
  const double logits_sum = log_sum(logits);
  double kl = 0.0;
  for (int64_t i = 0; i < size; ++i) {
    kl += std::exp(reference[i] - reference_sum) * ((reference[i] - reference_sum) - (logits[i] - logits_sum));
  }
  return kl;
}

// −log p of one token.
double negative_log_likelihood(const float* logits, int64_t size, int32_t token) {
  const double highest = *std::max_element(logits, logits + size);
  double sum = 0.0;
  for (int64_t i = 0; i < size; ++i) sum += std::exp(logits[i] - highest);
  return highest + std::log(sum) - logits[token];
}

double perplexity_ratio(const Comparison& result) {
  return std::exp(result.added_nll / static_cast<double>(result.num_positions));
}

float largest_difference(const float* a, const float* b, size_t size) {
  float largest = 0.0f;
  for (size_t i = 0; i < size; ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

void compare(const PromptFixture& prompt, const std::vector<float>& logits, Comparison& result) {
  ASSERT_EQ(logits.size(), prompt.logits.size());
  const auto [low, high] = std::ranges::minmax(prompt.logits);
  result.logit_range = std::max(result.logit_range, high - low);
  const size_t vocab_size = logits.size() / prompt.rows.size();
  for (size_t row = 0; row < prompt.rows.size(); ++row) {
    const float* expected = prompt.logits.data() + row * vocab_size;
    const float* actual = logits.data() + row * vocab_size;
    const float error = largest_difference(expected, actual, vocab_size);
    const double kl = kl_divergence(expected, actual, static_cast<int64_t>(vocab_size));
    const bool is_clear = prompt.router_margin[row] > kRouterMarginEpsilon;
    const auto next = static_cast<size_t>(prompt.rows[row]) + 1;
    if (next < prompt.token_ids.size()) {
      const auto size = static_cast<int64_t>(vocab_size);
      result.added_nll += negative_log_likelihood(actual, size, prompt.token_ids[next]) -
                          negative_log_likelihood(expected, size, prompt.token_ids[next]);
    }
    ++result.num_positions;
    result.max_error = std::max(result.max_error, error);
    result.max_bf16_error = std::max(result.max_bf16_error, prompt.bf16_error[row]);
    result.kl += kl;
    result.bf16_kl += prompt.bf16_kl[row];
    if (error > kLargestShareOfRange * (high - low)) ++result.num_far;
    if (prompt.bf16_error[row] > kLargestShareOfRange * (high - low)) ++result.num_bf16_far;
    if (is_clear) result.max_clear_error = std::max(result.max_clear_error, error);
    if (!is_clear) result.unclear_kl += kl;
    if (!is_clear) ++result.num_unclear;
  }
}

void print(const Comparison& result) {
  const auto count = static_cast<double>(result.num_positions);
  std::cout << "positions " << result.num_positions << ", logit range " << result.logit_range << ", max error "
            << result.max_error << " (transformers in BF16 " << result.max_bf16_error << "), mean KL "
            << result.kl / count << " (" << result.bf16_kl / count << "), near ties " << result.num_unclear
            << ", far " << result.num_far << " (" << result.num_bf16_far << "), perplexity ratio " << perplexity_ratio(result)
            << "\n";
}

int64_t longest(const std::vector<PromptFixture>& prompts) {
  size_t length = 0;
  for (const PromptFixture& prompt : prompts) length = std::max(length, prompt.token_ids.size());
  return static_cast<int64_t>(length);
}

// The logits of all prompts, prompt i run by rank i % num_ranks, in steps of 128 tokens per sequence.
std::vector<std::vector<float>> run_spread(const std::filesystem::path& model, const std::vector<PromptFixture>& prompts,
                                           int num_ranks, const RunFormats& formats) {
  std::vector<std::vector<float>> logits(prompts.size());
  spawn_ranks(num_ranks, [&](Communicator& comm) {
    std::vector<TestSequence> mine;
    const auto first = static_cast<size_t>(comm.rank());
    for (size_t i = first; i < prompts.size(); i += static_cast<size_t>(num_ranks)) mine.push_back(sequence_of(prompts[i]));
    const LevelTable levels = unskipped_levels(load_model_config(model).num_moe_layers());
    SequenceRunner runner(model, comm, levels, formats);
    const std::vector<std::vector<float>> result = runner.run(mine, plan_for(longest(prompts), 128));
    for (size_t i = 0; i < result.size(); ++i) logits[first + i * static_cast<size_t>(num_ranks)] = result[i];
  });
  return logits;
}

struct Case {
  const char* name;
  std::filesystem::path model;
  std::filesystem::path prompts;
};

void PrintTo(const Case& test_case, std::ostream* out) { *out << test_case.name; }

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"DemoText", demo_model(), model_fixture("demo_text.safetensors")},
      {"DemoImages", demo_model(), model_fixture("demo_images.safetensors")},
      {"TinyQwen3Moe", model_fixture("tiny_qwen3_moe"), model_fixture("tiny_qwen3_moe.safetensors")},
  };
  return all;
}

using CaseAndRanks = std::tuple<Case, int>;

class LogitsAcrossRanks : public testing::TestWithParam<CaseAndRanks> {};

Comparison compare_spread(const Case& test_case, int num_ranks, const RunFormats& formats) {
  const std::vector<PromptFixture> prompts = read_prompts(test_case.prompts);
  const std::vector<std::vector<float>> logits = run_spread(test_case.model, prompts, num_ranks, formats);
  Comparison result;
  for (size_t i = 0; i < prompts.size(); ++i) compare(prompts[i], logits[i], result);
  print(result);
  return result;
}

// With FP32 between the operators nothing but the order of sums differs from transformers in FP32.
TEST_P(LogitsAcrossRanks, EqualThoseOfTransformersInFp32) {
  const auto& [test_case, num_ranks] = GetParam();
  const Comparison result = compare_spread(test_case, num_ranks, kFp32);
  ASSERT_GT(result.num_positions, 0);
  EXPECT_LE(result.max_clear_error, 1e-4f * result.logit_range);
  EXPECT_LE(result.unclear_kl, 1e-3 * static_cast<double>(result.num_unclear));
  EXPECT_LE(20 * result.num_unclear, result.num_positions);
}

// The default rounds K, V and hidden rows between ranks to BF16. That turns near ties between experts, in this position or
// in one it attends to, as it does in transformers' own BF16: which positions are hit differs, how often and how hard not.
TEST_P(LogitsAcrossRanks, AreNoFartherFromFp32ThanTransformersInBf16) {
  const auto& [test_case, num_ranks] = GetParam();
  const Comparison result = compare_spread(test_case, num_ranks, kDefault);
  ASSERT_GT(result.num_positions, 0);
  EXPECT_LE(result.max_error, 1.5f * result.max_bf16_error);
  EXPECT_LE(result.kl, 1.5 * result.bf16_kl);
  EXPECT_LE(result.num_far, result.num_bf16_far);
}

RunFormats quantised(const std::string& experts, const std::string& dense) {
  RunFormats formats;
  formats.weights.experts = parse_weight_format(experts, "experts");
  formats.weights.dense = parse_weight_format(dense, "dense");
  return formats;
}

// What a format may cost: KL in nats per position, and perplexity of the prompts as a ratio to FP32's.
struct QuantisedCase {
  RunFormats formats;
  double max_kl;
  double max_perplexity_ratio;
};

TEST_P(LogitsAcrossRanks, OfQuantisedWeightsStayNearThoseOfTransformersInFp32) {
  const auto& [test_case, num_ranks] = GetParam();
  for (const QuantisedCase& quantised_case : {QuantisedCase{quantised("int8-g64", "int8-g64"), 0.01, 1.02},
                                              QuantisedCase{quantised("int4a-g32", "int8-g64"), 0.05, 1.08}}) {
    const Comparison result = compare_spread(test_case, num_ranks, quantised_case.formats);
    ASSERT_GT(result.num_positions, 0);
    EXPECT_LE(result.kl, quantised_case.max_kl * static_cast<double>(result.num_positions));
    EXPECT_LE(perplexity_ratio(result), quantised_case.max_perplexity_ratio);
    EXPECT_GT(result.max_error, 1e-4f * result.logit_range) << "nothing was quantised";
  }
}

INSTANTIATE_TEST_SUITE_P(, LogitsAcrossRanks, testing::Combine(testing::ValuesIn(cases()), testing::Values(1, 2, 3, 4)),
                         [](const testing::TestParamInfo<CaseAndRanks>& info) {
                           return std::get<0>(info.param).name + std::to_string(std::get<1>(info.param)) + "Ranks";
                         });

class LogitBits : public testing::TestWithParam<Case> {
 protected:
  // The longest prompts of a file: an image prompt with several images, a text of a few hundred tokens.
  std::vector<PromptFixture> prompts_ = read_prompts(GetParam().prompts);
  TestSequence sequence_ = sequence_of(prompts_.back());
};

INSTANTIATE_TEST_SUITE_P(, LogitBits, testing::ValuesIn(cases()),
                         [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_P(LogitBits, DoNotDependOnTheChunksOfThePrompt) {
  const std::vector<float> whole = logits_alone(GetParam().model, sequence_);
  spawn_ranks(1, [&](Communicator& comm) {
    const LevelTable levels = unskipped_levels(load_model_config(GetParam().model).num_moe_layers());
    SequenceRunner runner(GetParam().model, comm, levels);
    for (const int64_t chunk_size : {1, 7, 16, 61}) {
      const RunPlan plan = plan_for(static_cast<int64_t>(sequence_.token_ids.size()), chunk_size);
      EXPECT_TRUE(same_bits(runner.run({sequence_}, plan).front(), whole)) << "chunks of " << chunk_size;
    }
  });
}

TEST_P(LogitBits, DoNotDependOnTheBatch) {
  const std::vector<float> alone = logits_alone(GetParam().model, sequence_);
  spawn_ranks(1, [&](Communicator& comm) {
    const LevelTable levels = unskipped_levels(load_model_config(GetParam().model).num_moe_layers());
    SequenceRunner runner(GetParam().model, comm, levels);
    std::vector<TestSequence> batch;
    for (const PromptFixture& prompt : prompts_) batch.push_back(sequence_of(prompt));
    EXPECT_TRUE(same_bits(runner.run(batch, plan_for(longest(prompts_), 100)).back(), alone));
  });
}

TEST_P(LogitBits, OfAnyFormatDependNeitherOnTheBatchNorOnTheThreads) {
  for (RunFormats formats : {RunFormats(), quantised("int8-g64", "int8-g64"), quantised("int4a-g32", "int4-g32")}) {
    const std::vector<float> alone = logits_alone(GetParam().model, sequence_, formats);
    for (const int num_threads : {2, 3}) {
      formats.num_threads = num_threads;
      EXPECT_TRUE(same_bits(logits_alone(GetParam().model, sequence_, formats), alone)) << num_threads << " threads";
      spawn_ranks(1, [&](Communicator& comm) {
        const LevelTable levels = unskipped_levels(load_model_config(GetParam().model).num_moe_layers());
        SequenceRunner runner(GetParam().model, comm, levels, formats);
        std::vector<TestSequence> batch;
        for (const PromptFixture& prompt : prompts_) batch.push_back(sequence_of(prompt));
        EXPECT_TRUE(same_bits(runner.run(batch, plan_for(longest(prompts_), 100)).back(), alone)) << num_threads << " threads";
      });
    }
  }
}

TEST_P(LogitBits, DoNotDependOnTheOwnerRank) {
  constexpr int kNumRanks = 3;
  std::vector<std::vector<float>> by_owner(kNumRanks);
  spawn_ranks(kNumRanks, [&](Communicator& comm) {
    const LevelTable levels = unskipped_levels(load_model_config(GetParam().model).num_moe_layers());
    SequenceRunner runner(GetParam().model, comm, levels);
    const auto length = static_cast<int64_t>(sequence_.token_ids.size());
    for (int owner = 0; owner < kNumRanks; ++owner) {
      std::vector<TestSequence> mine;
      if (comm.rank() == owner) mine.push_back(sequence_);
      const std::vector<std::vector<float>> logits = runner.run(mine, plan_for(length, 50));
      if (comm.rank() == owner) by_owner[static_cast<size_t>(owner)] = logits.front();
    }
  });
  EXPECT_TRUE(same_bits(by_owner[1], by_owner[0]));
  EXPECT_TRUE(same_bits(by_owner[2], by_owner[0]));
}

TEST_P(LogitBits, DoNotDependOnWhichOtherRowsAreRead) {
  TestSequence last_only = sequence_;
  last_only.rows = {sequence_.rows.back()};
  const std::vector<float> many = logits_alone(GetParam().model, sequence_);
  const std::vector<float> one = logits_alone(GetParam().model, last_only);
  EXPECT_TRUE(same_bits(one, std::vector<float>(many.end() - static_cast<ptrdiff_t>(one.size()), many.end())));
}

// A table whose level 1 skips every text and vision pair.
LevelTable all_or_nothing(int num_moe_layers) {
  LevelTable table = unskipped_levels(num_moe_layers);
  table.levels.push_back(table.levels.front());
  table.levels.back().tau = {2.0f, 2.0f};
  return table;
}

TEST_P(LogitBits, OfGoldRequestsAreTheSameBesideSkippingOnes) {
  const std::vector<float> alone = logits_alone(GetParam().model, sequence_);
  spawn_ranks(1, [&](Communicator& comm) {
    const LevelTable levels = all_or_nothing(load_model_config(GetParam().model).num_moe_layers());
    SequenceRunner runner(GetParam().model, comm, levels);
    TestSequence skipping = sequence_;
    skipping.level = 1;
    const RunPlan plan = plan_for(static_cast<int64_t>(sequence_.token_ids.size()), 64);
    const std::vector<std::vector<float>> logits = runner.run({skipping, sequence_}, plan);
    EXPECT_TRUE(same_bits(logits[1], alone));
    EXPECT_FALSE(same_bits(logits[0], alone));
  });
}

TEST(MultimodalModel, ComputesProtectedTokensTheSameAtAnyLevel) {
  const TestSequence sequence = sequence_of(read_prompts(model_fixture("demo_text.safetensors")).back());
  const std::vector<float> alone = logits_alone(demo_model(), sequence);
  spawn_ranks(1, [&](Communicator& comm) {
    const LevelTable levels = all_or_nothing(load_model_config(demo_model()).num_moe_layers());
    SequenceRunner runner(demo_model(), comm, levels);
    TestSequence guarded = sequence;
    guarded.level = 1;
    guarded.text_class = TokenClass::kProtected;
    const auto length = static_cast<int64_t>(sequence.token_ids.size());
    EXPECT_TRUE(same_bits(runner.run({guarded}, plan_for(length, length)).front(), alone));
  });
}

TEST(MultimodalModel, RunsNoExpertAndSendsNoByteWhenAllPairsAreSkipped) {
  const std::vector<PromptFixture> prompts = read_prompts(model_fixture("demo_text.safetensors"));
  spawn_ranks(2, [&](Communicator& comm) {
    const LevelTable levels = all_or_nothing(load_model_config(demo_model()).num_moe_layers());
    SequenceRunner runner(demo_model(), comm, levels);
    TestSequence skipping = sequence_of(prompts[2]);
    skipping.level = 1;
    runner.run({skipping}, plan_for(static_cast<int64_t>(skipping.token_ids.size()), 16));
    const TrafficCounters& traffic = runner.model().traffic();
    EXPECT_EQ(traffic.total_payload_bytes(Hop::kLocal), 0);
    EXPECT_EQ(traffic.total_payload_bytes(Hop::kNode), 0);
    EXPECT_EQ(traffic.pairs_run[0], 0);
    EXPECT_GT(traffic.pairs_skipped[0], 0);
  });
}

TEST(MultimodalModel, RefusesImagesWhenItHasNoVisionTower) {
  spawn_ranks(1, [](Communicator& comm) {
    const LevelTable levels = unskipped_levels(2);
    SequenceRunner runner(model_fixture("tiny_qwen3_moe"), comm, levels);
    Stream stream;
    const std::vector<ImagePatches> images(1);
    EXPECT_THROW(runner.model().encode_images(images, stream), InvalidRequest);
  });
}

}  // namespace
}  // namespace skipper
