// Experts that rest on the host give the bits of experts on the GPU, whatever the table of tiers.
#include "model/expert_tiers.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "base/error.h"
#include "model/cuda/device_model.h"
#include "tests/kernels/cuda/gpu_test.h"
#include "tests/model/prompt_fixture.h"
#include "tests/model/sequence_runner.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

using Logits = std::vector<std::vector<float>>;  // by sequence: rows one after the other

constexpr auto kDevice = GpuExpertTier::kDevice;
constexpr auto kStreamed = GpuExpertTier::kHostStreamed;

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
  ExpertTiers random(uint32_t seed) const {
    std::mt19937 generator(seed);
    ExpertTiers tiers = uniform(kDevice);
    for (auto& layer : tiers.tiers) {
      const uint32_t streamed_of_four = generator() % 5;  // also none and all
      for (GpuExpertTier& tier : layer) tier = generator() % 4 < streamed_of_four ? kStreamed : kDevice;
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
    spawn_ranks(1, [&](Communicator& comm) {
      SequenceRunner runner(GetParam().model, comm, unskipped_levels(config_.num_moe_layers()), formats);
      body(runner);
    });
  }
  // Chunks of one are decode steps, some of them graphs; 16 rows of few sequences do not stage, hundreds do.
  std::vector<Logits> run(const RunFormats& formats) const {
    std::vector<Logits> results;
    with_model(formats, [&](SequenceRunner& runner) {
      for (const int64_t chunk_size : {int64_t{16}, int64_t{100}, longest_}) {
        results.push_back(runner.run(sequences_, plan_for(longest_, chunk_size)));
      }
      const std::vector<TestSequence> one{first_tokens(12)};
      for (int round = 0; round < 3; ++round) results.push_back(runner.run(one, plan_for(12, 1)));
    });
    return results;
  }
  TestSequence first_tokens(size_t count) const {
    TestSequence result;
    result.token_ids.assign(sequences_.back().token_ids.begin(), sequences_.back().token_ids.begin() + static_cast<ptrdiff_t>(count));
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
    cuda::check_device_memory(config_, {}, {.device = free_bytes, .staging = 0, .host = 0}, Device::cuda(0));
    FAIL() << "more experts than memory";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("gpu.device_expert_mb"), std::string::npos) << error.what();
  }
  EXPECT_NO_THROW(cuda::check_device_memory(config_, {}, {.device = 1, .staging = 1, .host = free_bytes}, Device::cuda(0)));
}

}  // namespace
}  // namespace skipper
