// Experts that rest on the host give the bits of experts on the GPU, whatever the table of tiers.
#include "model/expert_tiers.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"
#include "model/cuda/device_model.h"
#include "tensor/gpu_properties.h"
#include "tests/kernels/cuda/gpu_test.h"
#include "tests/model/prompt_fixture.h"
#include "tests/model/sequence_runner.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

using Logits = std::vector<std::vector<float>>;  // by sequence: rows one after the other

constexpr auto kDevice = GpuExpertTier::kDevice;
constexpr auto kStreamed = GpuExpertTier::kHostStreamed;
constexpr auto kComputed = GpuExpertTier::kHostComputed;

struct Case {
  const char* name;
  std::filesystem::path model;
  std::filesystem::path prompts;
};

void PrintTo(const Case& test_case, std::ostream* out) { *out << test_case.name; }

class CudaExpertTiers : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (num_gpus() == 0) GTEST_SKIP() << "no GPU in this machine";
    for (const PromptFixture& prompt : read_prompts(GetParam().prompts)) sequences_.push_back(sequence_of(prompt));
    for (const TestSequence& sequence : sequences_) {
      longest_ = std::max(longest_, static_cast<int64_t>(sequence.token_ids.size()));
    }
  }

  ExpertTiers uniform(GpuExpertTier tier) const {
    const auto slots = static_cast<size_t>(config_.moe.num_experts);
    return {.tiers = std::vector(static_cast<size_t>(config_.num_moe_layers()), std::vector(slots, tier))};
  }
  ExpertTiers random(uint32_t seed, GpuExpertTier other = kStreamed) const {
    std::mt19937 generator(seed);
    ExpertTiers tiers = uniform(kDevice);
    for (auto& layer : tiers.tiers) {
      const uint32_t others_of_four = generator() % 5;  // also none and all
      for (GpuExpertTier& tier : layer) tier = generator() % 4 < others_of_four ? other : kDevice;
    }
    return tiers;
  }

  RunFormats formats(const std::optional<ExpertTiers>& tiers) const {
    RunFormats result;
    result.device = Device::cuda(0);
    result.expert_tiers = tiers;
    result.num_threads = 2;
    return result;
  }
  void with_model(const RunFormats& formats, const std::function<void(SequenceRunner&)>& body) const {
    const LevelTable levels = unskipped_levels(config_.num_moe_layers());
    spawn_ranks(1, [&](Communicator& comm) {
      SequenceRunner runner(GetParam().model, comm, levels, formats);
      body(runner);
    });
  }
  // Chunks of one are decode steps, some of them graphs; 16 rows of few sequences do not stage, hundreds do.
  std::vector<Logits> run(const RunFormats& formats) const {
    std::vector<Logits> results;
    with_model(formats, [&](SequenceRunner& runner) {
      for (const int64_t chunk_size : {16, 100}) results.push_back(runner.run(sequences_, plan_for(longest_, chunk_size)));
      results.push_back(runner.run({sequences_.back()}, plan_for(longest_, longest_)));
      const std::vector<TestSequence> one{first_tokens(std::min<size_t>(12, sequences_.back().token_ids.size()))};
      for (int round = 0; round < 3; ++round) results.push_back(runner.run(one, plan_for(12, 1)));
    });
    return results;
  }
  TestSequence first_tokens(size_t count) const {
    const std::vector<int32_t>& ids = sequences_.back().token_ids;
    TestSequence result;
    result.token_ids.assign(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(count));
    for (size_t i = 0; i < count; ++i) result.rows.push_back(static_cast<int32_t>(i));
    return result;
  }

  const ModelConfig config_ = load_model_config(GetParam().model);
  std::vector<TestSequence> sequences_;
  int64_t longest_ = 0;
};

INSTANTIATE_TEST_SUITE_P(, CudaExpertTiers,
                         testing::Values(Case{"DemoText", demo_model(), model_fixture("demo_text.safetensors")},
                                         Case{"TinyQwen3Moe", model_fixture("tiny_qwen3_moe"),
                                              model_fixture("tiny_qwen3_moe.safetensors")}),
                         [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

bool same_bits(const std::vector<Logits>& a, const std::vector<Logits>& b) {
  return a == b && std::ranges::all_of(a.front().front(), [](float logit) { return std::isfinite(logit); });
}

TEST_P(CudaExpertTiers, GiveTheBitsOfExpertsOnTheGpu) {
  const std::vector<Logits> resident = run(formats(std::nullopt));
  ExpertTiers one = uniform(kDevice);
  one.tiers.back().back() = kStreamed;
  std::vector<ExpertTiers> tables{uniform(kDevice), uniform(kStreamed), one, random(1), random(2), random(3)};
  for (size_t i = 0; i < tables.size(); ++i) {
    for (const bool are_staged : {false, true}) {
      tables[i].are_staged = are_staged;
      EXPECT_TRUE(same_bits(run(formats(tables[i])), resident)) << "table " << i << (are_staged ? ", staged" : "");
    }
  }
}

TEST_P(CudaExpertTiers, GiveTheBitsOfExpertsOnTheGpuInCodes) {
  const auto in_codes = [&](const std::optional<ExpertTiers>& tiers) {
    RunFormats result = formats(tiers);
    result.weights.experts = parse_weight_format("int4-g32", "experts");
    return result;
  };
  ExpertTiers tiers = random(4);
  tiers.are_staged = true;
  EXPECT_TRUE(same_bits(run(in_codes(tiers)), run(in_codes(std::nullopt))));
}

double relative_distance(const std::vector<Logits>& actual, const std::vector<Logits>& expected) {
  double difference = 0.0, size = 0.0;
  for (size_t run = 0; run < expected.size(); ++run) {
    for (size_t s = 0; s < expected[run].size(); ++s) {
      for (size_t i = 0; i < expected[run][s].size(); ++i) {
        difference += std::pow(static_cast<double>(actual[run][s][i]) - expected[run][s][i], 2);
        size += std::pow(static_cast<double>(expected[run][s][i]), 2);
      }
    }
  }
  return std::sqrt(difference / size);
}

// The CPU sums in another order and a near tie may turn; codes meet activations of eight bits there.
TEST_P(CudaExpertTiers, OfTheHostsComputationGiveAboutTheSameLogits) {
  const std::vector<Logits> resident = run(formats(std::nullopt));
  ExpertTiers one = uniform(kDevice);
  one.tiers.front().front() = kComputed;
  for (const ExpertTiers& tiers : {uniform(kComputed), one, random(5, kComputed)}) {
    EXPECT_LT(relative_distance(run(formats(tiers)), resident), 0.06);
  }
}

TEST_P(CudaExpertTiers, OfTheHostsComputationGiveBitsThatDependOnNoChunkAndNoBatch) {
  ExpertTiers tiers = random(6, kComputed);
  tiers.tiers.front().front() = kComputed;
  tiers.tiers.front().back() = kStreamed;
  tiers.are_staged = true;
  const std::vector<Logits> runs = run(formats(tiers));
  EXPECT_EQ(runs[1], runs[0]);
  EXPECT_EQ(runs[2].front(), runs[0].back());
  EXPECT_EQ(runs[4], runs[3]);
  EXPECT_EQ(runs[5], runs[3]);
  RunFormats alone = formats(tiers);
  alone.graphs = GraphUse::kNone;
  EXPECT_TRUE(same_bits(run(alone), runs));
}

TEST_P(CudaExpertTiers, TakeTheMemoryThatTheySay) {
  WeightMemory resident, streamed;
  with_model(formats(std::nullopt), [&](SequenceRunner& runner) { resident = runner.model().weight_memory(); });
  with_model(formats(uniform(kStreamed)), [&](SequenceRunner& runner) { streamed = runner.model().weight_memory(); });
  EXPECT_EQ(resident.pinned_bytes, 0u);
  EXPECT_GT(streamed.pinned_bytes, 0u);
  EXPECT_EQ(streamed.gpu_bytes + streamed.pinned_bytes, resident.gpu_bytes);
}

TEST_P(CudaExpertTiers, AreRefusedBeforeLoadingWhereTheyDoNotFit) {
  const size_t free_bytes = gpu_properties(0).free_bytes;
  try {
    cuda::check_device_memory(config_, {}, {.device = free_bytes, .staging = 0, .streamed = 0}, Device::cuda(0));
    FAIL() << "more experts than memory";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("gpu.device_expert_mb"), std::string::npos) << error.what();
  }
  EXPECT_NO_THROW(cuda::check_device_memory(config_, {}, {.device = 1, .staging = 1, .streamed = free_bytes}, Device::cuda(0)));
}

}  // namespace
}  // namespace skipper
