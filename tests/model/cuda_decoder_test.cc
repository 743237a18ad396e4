#include "model/cuda/decoder.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>

#include "base/error.h"
#include "tests/kernels/cuda/gpu_test.h"
#include "tests/model/prompt_fixture.h"
#include "tests/model/sequence_runner.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

using Logits = std::vector<std::vector<float>>;  // by sequence: rows one after the other

RunFormats on_gpu(RunFormats formats = {}) {
  formats.device = Device::cuda(0);
  return formats;
}

RunFormats quantised(const std::string& experts, const std::string& dense) {
  RunFormats formats;
  formats.weights.experts = parse_weight_format(experts, "experts");
  formats.weights.dense = parse_weight_format(dense, "dense");
  return formats;
}

struct Case {
  const char* name;
  std::filesystem::path model;
  std::filesystem::path prompts;

  LevelTable unskipped() const { return unskipped_levels(load_model_config(model).num_moe_layers()); }
  std::vector<PromptFixture> read() const { return read_prompts(prompts); }
};

void PrintTo(const Case& test_case, std::ostream* out) { *out << test_case.name; }

std::vector<Case> cases() {
  return {{"DemoText", demo_model(), model_fixture("demo_text.safetensors")},
          {"DemoImages", demo_model(), model_fixture("demo_images.safetensors")},
          {"TinyQwen3Moe", model_fixture("tiny_qwen3_moe"), model_fixture("tiny_qwen3_moe.safetensors")}};
}

std::vector<TestSequence> sequences_of(const std::vector<PromptFixture>& prompts) {
  std::vector<TestSequence> sequences;
  for (const PromptFixture& prompt : prompts) sequences.push_back(sequence_of(prompt));
  return sequences;
}

int64_t longest(const std::vector<TestSequence>& sequences) {
  size_t length = 0;
  for (const TestSequence& sequence : sequences) length = std::max(length, sequence.token_ids.size());
  return static_cast<int64_t>(length);
}

// The first tokens of a sequence, with the logits of all: steps of one token are then decode steps.
TestSequence decoded(const TestSequence& sequence, size_t num_tokens) {
  TestSequence result;
  result.token_ids.assign(sequence.token_ids.begin(), sequence.token_ids.begin() + static_cast<ptrdiff_t>(num_tokens));
  for (size_t i = 0; i < num_tokens; ++i) result.rows.push_back(static_cast<int32_t>(i));
  return result;
}

// A model on one rank; `body` runs sequences through it.
void with_model(const Case& test_case, const LevelTable& levels, const RunFormats& formats,
                const std::function<void(SequenceRunner&)>& body) {
  spawn_ranks(1, [&](Communicator& comm) {
    SequenceRunner runner(test_case.model, comm, levels, formats);
    body(runner);
  });
}

Logits logits_of(const Case& test_case, const std::vector<TestSequence>& sequences, const RunFormats& formats,
                 int64_t chunk_size) {
  Logits logits;
  with_model(test_case, test_case.unskipped(), formats, [&](SequenceRunner& runner) {
    logits = runner.run(sequences, plan_for(longest(sequences), chunk_size));
  });
  return logits;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// How far logits are from those that transformers computed in FP32.
struct Distance {
  double relative_error = 0.0;
  double agreement = 0.0;  // share of rows with the same largest logit
};

int64_t index_of_largest(const float* values, size_t size) { return std::max_element(values, values + size) - values; }

Distance distance(const Logits& logits, const std::vector<PromptFixture>& prompts) {
  double difference = 0.0, size = 0.0, num_rows = 0.0, num_equal = 0.0;
  for (size_t p = 0; p < prompts.size(); ++p) {
    const std::vector<float>& expected = prompts[p].logits;
    EXPECT_EQ(logits[p].size(), expected.size());
    const size_t vocab_size = expected.size() / prompts[p].rows.size();
    for (size_t i = 0; i < expected.size(); ++i) {
      difference += std::pow(static_cast<double>(logits[p][i]) - expected[i], 2);
      size += std::pow(static_cast<double>(expected[i]), 2);
    }
    for (size_t row = 0; row < expected.size(); row += vocab_size) {
      num_equal += index_of_largest(&logits[p][row], vocab_size) == index_of_largest(&expected[row], vocab_size) ? 1.0 : 0.0;
      num_rows += 1.0;
    }
  }
  return {std::sqrt(difference / size), num_equal / num_rows};
}

class CudaDecoder : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (num_gpus() == 0) GTEST_SKIP() << "no GPU in this machine";
  }

  std::vector<PromptFixture> prompts_ = GetParam().read();
  std::vector<TestSequence> sequences_ = sequences_of(prompts_);
};

INSTANTIATE_TEST_SUITE_P(, CudaDecoder, testing::ValuesIn(cases()),
                         [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

// Both round to BF16 at the inputs of matrices and in the KV cache; near ties between experts may turn either way.
TEST_P(CudaDecoder, LogitsAreAboutAsFarFromFp32AsTheHosts) {
  const Distance host = distance(logits_of(GetParam(), sequences_, {.num_threads = 2}, 128), prompts_);
  const Distance gpu = distance(logits_of(GetParam(), sequences_, on_gpu(), 128), prompts_);
  RecordProperty("host", std::to_string(host.relative_error));
  RecordProperty("gpu", std::to_string(gpu.relative_error));
  EXPECT_GT(host.relative_error, 0.0);
  EXPECT_LT(gpu.relative_error, std::max(1.5 * host.relative_error, 0.02));
  EXPECT_GE(gpu.agreement, host.agreement - 0.05);
}

TEST_P(CudaDecoder, LogitsOfIntegerWeightsAreAboutAsFarFromFp32AsTheHosts) {
  for (const RunFormats& formats : {quantised("int8-g64", "int8-g64"), quantised("int4-g32", "int8-g128")}) {
    const Distance host = distance(logits_of(GetParam(), sequences_, formats, 128), prompts_);
    const Distance gpu = distance(logits_of(GetParam(), sequences_, on_gpu(formats), 128), prompts_);
    EXPECT_LT(gpu.relative_error, 1.5 * host.relative_error);
    // The random model has 54 rows of near ties; one is 2 %.
    EXPECT_GE(gpu.agreement, host.agreement - 0.1);
  }
}

TEST_P(CudaDecoder, BitsDoNotDependOnTheChunksOfThePrompt) {
  const std::vector<TestSequence> last{sequences_.back()};
  const std::vector<float> whole = logits_of(GetParam(), last, on_gpu(), longest(last)).front();
  with_model(GetParam(), GetParam().unskipped(), on_gpu(), [&](SequenceRunner& runner) {
    for (const int64_t chunk_size : {1, 7, 16, 61}) {
      const RunPlan plan = plan_for(longest(last), chunk_size);
      EXPECT_TRUE(same_bits(runner.run(last, plan).front(), whole)) << "chunks of " << chunk_size;
    }
  });
}

TEST_P(CudaDecoder, BitsDoNotDependOnTheBatch) {
  for (const RunFormats& formats : {RunFormats(), quantised("int4-g32", "int8-g64")}) {
    const std::vector<TestSequence> last{sequences_.back()};
    const std::vector<float> alone = logits_of(GetParam(), last, on_gpu(formats), longest(last)).front();
    EXPECT_TRUE(same_bits(logits_of(GetParam(), sequences_, on_gpu(formats), 100).back(), alone));
  }
}

TEST_P(CudaDecoder, BitsDoNotDependOnWhichOtherRowsAreRead) {
  TestSequence last_row = sequences_.back();
  last_row.rows = {last_row.rows.back()};
  const std::vector<float> many = logits_of(GetParam(), {sequences_.back()}, on_gpu(), 100).front();
  const std::vector<float> one = logits_of(GetParam(), {last_row}, on_gpu(), 100).front();
  EXPECT_TRUE(same_bits(one, std::vector<float>(many.end() - static_cast<ptrdiff_t>(one.size()), many.end())));
}

// Text alone: decode steps hold no images.
class CudaDecodeSteps : public CudaDecoder {
 protected:
  // Sequences of different lengths, so that the number of rows falls from step to step.
  std::vector<TestSequence> few_tokens(size_t num_sequences) const {
    std::vector<TestSequence> result;
    for (size_t i = 0; i < num_sequences; ++i) {
      const TestSequence& sequence = sequences_[i % sequences_.size()];
      result.push_back(decoded(sequence, std::min<size_t>(3 + i % 7, sequence.token_ids.size())));
    }
    return result;
  }
};

INSTANTIATE_TEST_SUITE_P(, CudaDecodeSteps, testing::Values(cases()[0], cases()[2]),
                         [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

TEST_P(CudaDecodeSteps, GraphsGiveTheBitsOfKernelsOnTheirOwn) {
  RunFormats formats = on_gpu();
  formats.graphs = GraphUse::kNone;
  for (const size_t num_sequences : {1u, 3u, 13u}) {
    const std::vector<TestSequence> sequences = few_tokens(num_sequences);
    const Logits expected = logits_of(GetParam(), sequences, formats, 1);
    with_model(GetParam(), GetParam().unskipped(), on_gpu(), [&](SequenceRunner& runner) {
      // A shape is run on its own first, then recorded, then launched.
      for (int round = 0; round < 3; ++round) {
        const Logits logits = runner.run(sequences, plan_for(longest(sequences), 1));
        for (size_t i = 0; i < sequences.size(); ++i) EXPECT_TRUE(same_bits(logits[i], expected[i])) << num_sequences;
      }
    });
  }
}

TEST_P(CudaDecodeSteps, GiveTheBitsOfAWholePrompt) {
  const std::vector<TestSequence> sequences{decoded(sequences_.back(), std::min<size_t>(40, sequences_.back().token_ids.size()))};
  const std::vector<float> whole = logits_of(GetParam(), sequences, on_gpu(), 40).front();
  EXPECT_TRUE(same_bits(logits_of(GetParam(), sequences, on_gpu(), 1).front(), whole));
}

// Level 1 skips about half of the pairs, level 2 all.
LevelTable skipping_levels(int num_moe_layers) {
  LevelTable table = unskipped_levels(num_moe_layers);
  OperatingPoint half = table.levels.front();
  for (std::vector<float>& alpha : half.alpha) {
    alpha.assign(static_cast<size_t>(num_moe_layers), 1.0f / static_cast<float>(num_moe_layers));
  }
  half.tau = {0.2f / static_cast<float>(num_moe_layers), 0.2f / static_cast<float>(num_moe_layers)};
  OperatingPoint all = half;
  all.tau = {2.0f, 2.0f};
  table.levels.push_back(half);
  table.levels.push_back(all);
  return table;
}

struct SkippingRun {
  Logits logits;
  std::vector<int64_t> pairs;
};

SkippingRun run_skipping(const Case& test_case, std::vector<TestSequence> sequences, const RunFormats& formats) {
  for (size_t i = 0; i < sequences.size(); ++i) sequences[i].level = static_cast<uint8_t>(i % 3);
  SkippingRun result;
  const LevelTable levels = skipping_levels(load_model_config(test_case.model).num_moe_layers());
  with_model(test_case, levels, formats, [&](SequenceRunner& runner) {
    result.logits = runner.run(sequences, plan_for(longest(sequences), 64));
    const std::span<const int64_t> counts = runner.model().pairs().counts();
    result.pairs.assign(counts.begin(), counts.end());
  });
  return result;
}

TEST_P(CudaDecoder, SkipsThePairsThatTheHostSkips) {
  const SkippingRun host = run_skipping(GetParam(), sequences_, {.num_threads = 2});
  const SkippingRun gpu = run_skipping(GetParam(), sequences_, on_gpu());
  ASSERT_EQ(gpu.pairs.size(), host.pairs.size());
  int64_t total = 0, difference = 0, host_sum = 0, gpu_sum = 0;
  for (size_t i = 0; i < host.pairs.size(); ++i) {
    host_sum += host.pairs[i];
    gpu_sum += gpu.pairs[i];
    total += host.pairs[i];
    difference += std::abs(host.pairs[i] - gpu.pairs[i]);
  }
  EXPECT_EQ(gpu_sum, host_sum);
  // A weight at the very threshold may fall on either side.
  EXPECT_LT(difference, total / 50 + 4);
}

TEST_P(CudaDecoder, GoldRowsHaveTheSameBitsBesideSkippingOnes) {
  const Logits unskipped = logits_of(GetParam(), {sequences_[0]}, on_gpu(), 64);
  const Logits mixed = run_skipping(GetParam(), sequences_, on_gpu()).logits;
  EXPECT_TRUE(same_bits(mixed[0], unskipped[0]));
  EXPECT_FALSE(same_bits(mixed[1], logits_of(GetParam(), {sequences_[1]}, on_gpu(), 64).front()));
}

// One prompt of a few tokens as a step, all of whose logits are read.
struct SmallBatch {
  explicit SmallBatch(int64_t num_tokens, std::vector<int32_t> rows) : logit_rows(std::move(rows)) {
    for (int32_t t = 0; t < num_tokens; ++t) {
      ids.push_back(7 * t + 3);
      positions.push_back(t);
      rotary.insert(rotary.end(), 3, t);
    }
    zeros.assign(static_cast<size_t>(num_tokens), 0);
    no_class.assign(static_cast<size_t>(num_tokens), 0);
  }

  BatchInput input(LogitUse use) const {
    const auto count = static_cast<int64_t>(ids.size());
    const auto ints = [](const std::vector<int32_t>& values, const Shape& shape) {
      return Tensor::borrow_const(values.data(), shape, DType::kI32);
    };
    BatchInput batch;
    batch.token_ids = ints(ids, {count});
    batch.rotary_positions = ints(rotary, {count, 3});
    batch.positions = batch.kv_slots = ints(positions, {count});
    batch.sequence_index = ints(zeros, {count});
    batch.block_tables = ints(block_table, {1, 4});
    batch.token_class = batch.level = batch.phase = Tensor::borrow_const(no_class.data(), {count}, DType::kU8);
    batch.logit_rows = ints(logit_rows, {static_cast<int64_t>(logit_rows.size())});
    batch.logit_use = use;
    return batch;
  }

  std::vector<int32_t> ids, positions, rotary, zeros, logit_rows, block_table{0, 1, 2, 3};
  std::vector<uint8_t> no_class;
};

TEST_P(CudaDecoder, GreedyTokensAreTheLargestLogits) {
  with_model(GetParam(), GetParam().unskipped(), on_gpu(), [&](SequenceRunner& runner) {
    const SmallBatch batch(11, {2, 3, 10});
    MultimodalModel& model = runner.model();
    const Tensor logits = model.forward(batch.input(LogitUse::kLogits), runner.cache(), runner.stream()).logits;
    std::vector<int64_t> largest;
    for (int64_t row = 0; row < 3; ++row) {
      largest.push_back(index_of_largest(logits.row<float>(row), static_cast<size_t>(logits.dim(1))));
    }
    const StepOutput greedy = model.forward(batch.input(LogitUse::kTokens), runner.cache(), runner.stream());
    EXPECT_FALSE(greedy.logits.defined());
    for (int64_t row = 0; row < 3; ++row) {
      EXPECT_EQ(greedy.tokens.data<int32_t>()[row], largest[static_cast<size_t>(row)]);
    }
  });
}

// Rows that ask for different things, by turns.
std::vector<TokenSampling> mixed_samplings(size_t num_rows, uint64_t turn) {
  const TokenSampling kinds[] = {
      {.temperature = 1.0f}, {}, {.temperature = 0.7f, .top_p = 0.9f, .top_k = 40}, {.temperature = 3.0f}};
  std::vector<TokenSampling> samplings;
  for (size_t row = 0; row < num_rows; ++row) {
    samplings.push_back(kinds[(row + turn) % std::size(kinds)]);
    samplings.back().random = 0x9e3779b97f4a7c15u * (turn * num_rows + row + 1);
  }
  return samplings;
}

void expect_tokens_of_the_host(SequenceRunner& runner, const SmallBatch& batch, uint64_t turn) {
  const std::vector<TokenSampling> samplings = mixed_samplings(batch.logit_rows.size(), turn);
  Tensor logits = runner.model().forward(batch.input(LogitUse::kLogits), runner.cache(), runner.stream()).logits;
  std::vector<int32_t> expected;
  for (size_t row = 0; row < samplings.size(); ++row) {
    float* values = logits.row<float>(static_cast<int64_t>(row));
    expected.push_back(sample_token({values, static_cast<size_t>(logits.dim(1))}, samplings[row]));
  }
  BatchInput input = batch.input(LogitUse::kTokens);
  input.samplings = samplings;
  const Tensor tokens = runner.model().forward(input, runner.cache(), runner.stream()).tokens;
  EXPECT_EQ(std::vector<int32_t>(tokens.span<int32_t>().begin(), tokens.span<int32_t>().end()), expected) << turn;
}

TEST_P(CudaDecoder, SampledTokensAreTheHostsFromTheSameLogits) {
  with_model(GetParam(), GetParam().unskipped(), on_gpu(), [&](SequenceRunner& runner) {
    for (uint64_t turn = 0; turn < 4; ++turn) expect_tokens_of_the_host(runner, SmallBatch(11, {2, 3, 5, 10}), turn);
    // One row is a decode step, of which the first runs on its own, the second is recorded, and later ones are launched.
    for (uint64_t turn = 0; turn < 8; ++turn) expect_tokens_of_the_host(runner, SmallBatch(1, {0}), turn);
  });
}

std::vector<int32_t> usage_after_a_step(const Case& test_case, const RunFormats& formats) {
  std::vector<int32_t> usage;
  with_model(test_case, test_case.unskipped(), formats, [&](SequenceRunner& runner) {
    const SmallBatch batch(11, {2, 10});
    runner.model().forward(batch.input(LogitUse::kLogits), runner.cache(), runner.stream());
    const Tensor rows = runner.model().token_usage();
    usage.assign(rows.data<int32_t>(), rows.data<int32_t>() + 11 * kNumGpuUsageColumns);
  });
  return usage;
}

TEST_P(CudaDecoder, CountsWhatEachTokenCostAsTheHostDoes) {
  EXPECT_EQ(usage_after_a_step(GetParam(), on_gpu()), usage_after_a_step(GetParam(), {}));
}

TEST_P(CudaDecoder, KeepsNoWeightsOnTheHost) {
  with_model(GetParam(), GetParam().unskipped(), on_gpu(), [](SequenceRunner& runner) {
    const WeightMemory memory = runner.model().weight_memory();
    EXPECT_GT(memory.gpu_bytes, 0u);
    EXPECT_EQ(memory.dense_bytes + memory.expert_bytes + memory.mapped_bytes, 0u);
  });
}

TEST_P(CudaDecoder, RefusesAFormatThatOnlyTheHostMultipliesWith) {
  EXPECT_THROW(logits_of(GetParam(), {sequences_.front()}, on_gpu(quantised("int4a-g32", "bf16")), 64), InvalidRequest);
}

// Pairs that run, as DeviceTallies counts them.
struct ObservedLoads {
  int64_t num_experts = 0;
  std::vector<int64_t> counts;

  void count(const MoeLayerConfig& layer, const TokenPolicies& policies, const Routing& kept) {
    for (int64_t t = 0; t < policies.num_tokens(); ++t) {
      const int64_t token_class = policies.token_class.data<uint8_t>()[t];
      for (int64_t j = 0; j < layer.top_k; ++j) {
        const int32_t expert = kept.expert_ids.row<int32_t>(t)[j];
        if (expert != kNoExpert) ++counts[static_cast<size_t>((layer.moe_layer * 3 + token_class) * num_experts + expert)];
      }
    }
  }
};

TEST_P(CudaDecoder, ShowsObserversTheRoutingWhoseLoadsItCounts) {
  const LevelTable levels = skipping_levels(load_model_config(GetParam().model).num_moe_layers());
  std::vector<TestSequence> sequences = sequences_;
  for (size_t i = 0; i < sequences.size(); ++i) sequences[i].level = static_cast<uint8_t>(i % 3);
  with_model(GetParam(), levels, on_gpu(), [&](SequenceRunner& runner) {
    const ModelConfig& config = runner.config();
    ObservedLoads loads{config.moe.num_experts, {}};
    loads.counts.assign(static_cast<size_t>(config.num_moe_layers() * 3 * config.moe.num_experts), 0);
    const Logits expected = runner.run(sequences, plan_for(longest(sequences), 50));
    const std::vector<int64_t> before = runner.model().expert_loads();
    runner.model().set_routing_observer([&](const auto& layer, const auto& policies, const auto& routed, const auto& kept) {
      loads.count(layer, policies, kept);
      for (int64_t t = 0; t < policies.num_tokens(); ++t) {
        double sum = 0.0;
        for (int64_t j = 0; j < layer.top_k; ++j) {
          const int32_t expert = kept.expert_ids.template row<int32_t>(t)[j];
          EXPECT_TRUE(expert == kNoExpert || expert == routed.expert_ids.template row<int32_t>(t)[j]);
          sum += static_cast<double>(routed.expert_weights.template row<float>(t)[j]);
        }
        EXPECT_GT(sum, 0.0);
        EXPECT_LT(sum, 1.0 + 1e-5);
      }
    });
    const Logits observed = runner.run(sequences, plan_for(longest(sequences), 50));
    for (size_t i = 0; i < sequences.size(); ++i) EXPECT_TRUE(same_bits(observed[i], expected[i]));
    std::vector<int64_t> counted = runner.model().expert_loads();
    ASSERT_EQ(counted.size(), loads.counts.size());
    for (size_t i = 0; i < counted.size(); ++i) counted[i] -= before[i];
    EXPECT_EQ(counted, loads.counts);
    EXPECT_EQ(counted, before) << "the same run counts the same";
  });
}

TEST_P(CudaDecodeSteps, ObservedStepsHaveTheBitsOfGraphs) {
  const std::vector<TestSequence> sequences = few_tokens(5);
  with_model(GetParam(), GetParam().unskipped(), on_gpu(), [&](SequenceRunner& runner) {
    const RunPlan plan = plan_for(longest(sequences), 1);
    for (int round = 0; round < 2; ++round) runner.run(sequences, plan);
    const Logits expected = runner.run(sequences, plan);
    int64_t num_seen = 0;
    runner.model().set_routing_observer(
        [&](const auto&, const auto& policies, const auto&, const auto&) { num_seen += policies.num_tokens(); });
    const Logits observed = runner.run(sequences, plan);
    runner.model().set_routing_observer(nullptr);
    const Logits afterwards = runner.run(sequences, plan);
    int64_t num_tokens = 0;
    for (const TestSequence& sequence : sequences) num_tokens += static_cast<int64_t>(sequence.token_ids.size());
    EXPECT_EQ(num_seen, num_tokens * runner.config().num_moe_layers());
    for (size_t i = 0; i < sequences.size(); ++i) {
      EXPECT_TRUE(same_bits(observed[i], expected[i]));
      EXPECT_TRUE(same_bits(afterwards[i], expected[i]));
    }
  });
}

TEST_P(CudaDecodeSteps, TimeTheirExpertsNowAndThen) {
  const std::vector<TestSequence> sequences = few_tokens(2);
  const RunPlan plan = plan_for(longest(sequences), 1);
  with_model(GetParam(), GetParam().unskipped(), on_gpu(), [&](SequenceRunner& runner) {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t num_steps = 0; num_steps < 300; num_steps += plan.num_steps) runner.run(sequences, plan);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    const std::chrono::duration<double> in_experts = runner.model().expert_time();
    EXPECT_GT(in_experts.count(), 0.0);
    EXPECT_LT(in_experts.count(), 10.0 * elapsed.count()) << "one step stands for 256";
  });
}

TEST_P(CudaDecoder, RefusesToShowTheInputsOfMatrices) {
  with_model(GetParam(), GetParam().unskipped(), on_gpu(), [](SequenceRunner& runner) {
    EXPECT_THROW(runner.model().set_activation_observer([](const ObservedRows&, Stream&) {}), InvalidRequest);
  });
}

// Heads of 128, as large models have them, on weights from nowhere.
ModelConfig wide_model() {
  ModelConfig model;
  model.vocab_size = 1000;
  model.hidden_size = 512;
  model.max_position_embeddings = 4096;
  model.feed_forward.assign(3, FeedForwardKind::kMixtureOfExperts);
  model.attention = {.num_heads = 8, .kv = {.kv_heads = 2, .key_dim = 128, .value_dim = 128}};
  model.rotary = {.theta = 1e6, .dim = 128, .mrope_sections = {}};
  model.moe = {.num_experts = 16, .top_k = 4, .intermediate_size = 192};
  return model;
}

TEST(RandomDecoder, RunsFromItsSeedAloneWithAndWithoutGraphs) {
  if (num_gpus() == 0) GTEST_SKIP() << "no GPU in this machine";
  const ModelConfig model = wide_model();
  const ExpertPlacement placement = ExpertPlacement::contiguous({.num_moe_layers = 3, .num_experts = 16, .world_size = 1});
  const ClusterTopology topology(std::vector<int>{0});
  const LevelTable levels = unskipped_levels(3);
  std::vector<Logits> runs;
  for (const GraphUse graphs : {GraphUse::kDecodeSteps, GraphUse::kNone}) {
    Stream stream(Device::cuda(0));
    PairCounters pairs(3);
    TrafficCounters traffic;
    const cuda::DecoderConfig config{.limits = {.max_tokens = 64, .max_logit_rows = 16, .max_sequences = 8, .max_positions = 64},
                                     .graphs = graphs};
    cuda::Decoder decoder(model, cuda::random_decoder_weights(model, {{WeightKind::kInt4, 64}, {}}, 5, stream), config,
                          {.placement = placement, .topology = topology, .levels = levels, .pairs = pairs, .traffic = traffic},
                          stream);
    KvCache cache(model, {.num_blocks = 4, .block_size = 16}, Device::cuda(0));
    Logits& run = runs.emplace_back();
    for (int32_t position = 0; position < 5; ++position) {
      SmallBatch step(1, {0});
      step.positions = {position};
      step.rotary.assign(3, position);
      step.ids = {position * 31};
      const Tensor logits = decoder.forward(step.input(LogitUse::kLogits), cache, stream).logits;
      run.emplace_back(logits.data<float>(), logits.data<float>() + logits.num_elements());
    }
    EXPECT_EQ(decoder.num_graphs(), graphs == GraphUse::kNone ? 0 : 1);
  }
  for (size_t position = 0; position < 5; ++position) {
    EXPECT_TRUE(same_bits(runs[0][position], runs[1][position])) << position;
    for (const float logit : runs[0][position]) ASSERT_TRUE(std::isfinite(logit));
  }
  EXPECT_FALSE(same_bits(runs[0][1], runs[0][2]));
}

TEST(PaddedRows, AreTheNextBucket) {
  EXPECT_EQ(cuda::padded_rows(0), 1);
  EXPECT_EQ(cuda::padded_rows(1), 1);
  EXPECT_EQ(cuda::padded_rows(3), 4);
  EXPECT_EQ(cuda::padded_rows(17), 24);
  EXPECT_EQ(cuda::padded_rows(97), 128);
  EXPECT_EQ(cuda::padded_rows(193), 256);
  EXPECT_EQ(cuda::padded_rows(257), 384);
}

}  // namespace
}  // namespace skipper
