// Experts on disk: no bit of a logit may depend on where they rest, on the cache, or on what was foreseen.
#include "model/disk_experts.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "base/error.h"
#include "tests/model/prompt_fixture.h"
#include "tests/model/sequence_runner.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

using testing::HasSubstr;

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class DiskExpertsTest : public testing::Test {
 protected:
  DiskExpertsTest() { std::filesystem::create_directory(folder_); }
  ~DiskExpertsTest() override { std::filesystem::remove_all(folder_); }

  // Experts in formats that take turns, every `share`-th in memory and the others on disk.
  ExpertAssignment assignment(int world_size, int rank, int share) const {
    const WeightFormat formats[] = {{}, {WeightKind::kInt8, 64}, {WeightKind::kInt4Asymmetric, 32}};
    const int num_experts = static_cast<int>(config_.moe.num_experts), num_layers = config_.num_moe_layers();
    ExpertAssignment result{ExpertPlacement::contiguous({num_layers, num_experts, world_size}), {}};
    for (int layer = 0; layer < num_layers; ++layer) {
      std::vector<AssignedExpert>& slots = result.slots.emplace_back();
      for (const int32_t expert : result.placement.experts_of(rank, layer)) {
        const bool in_memory = share > 0 && expert % share == 0;
        slots.push_back({.format = formats[expert % 3], .rest = in_memory ? ExpertTier::kHost : ExpertTier::kDisk});
      }
    }
    return result;
  }

  static void put_in_memory(ExpertAssignment& assignment) {
    for (auto& layer : assignment.slots) {
      for (AssignedExpert& expert : layer) expert.rest = ExpertTier::kHost;
    }
  }

  RunFormats formats(int share, size_t cache_bytes, ForesightRule foresight = ForesightRule::kGate) const {
    RunFormats result{.num_threads = 2};
    result.assignment = assignment(1, 0, share);
    result.disk = DiskConfig{.directory = folder_, .cache_bytes = cache_bytes, .rules = {.foresight = foresight}};
    return result;
  }

  std::vector<float> logits_in_memory() const {
    RunFormats result{.num_threads = 2};
    result.assignment = assignment(1, 0, 1);
    put_in_memory(*result.assignment);
    return logits_alone(demo_model(), sequence_, result);
  }

  static TestSequence longest_sequence() {
    const std::vector<PromptFixture> prompts = read_prompts(model_fixture("demo_text.safetensors"));
    const auto length = [](const PromptFixture& prompt) { return prompt.token_ids.size(); };
    return sequence_of(*std::ranges::max_element(prompts, {}, length));
  }

  std::filesystem::path only_file() const { return std::filesystem::directory_iterator(folder_)->path(); }

  std::string refusal(const RunFormats& formats) const {
    try {
      logits_alone(demo_model(), sequence_, formats);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  static constexpr size_t kExpertBytes = size_t{3} * 256 * 96 * 2;  // of the demo's, in BF16

  const std::filesystem::path folder_ =
      std::filesystem::current_path() / ("disk_experts_test_" + std::to_string(::getpid()));
  const ModelConfig config_ = load_model_config(demo_model());
  const TestSequence sequence_ = longest_sequence();
};

TEST_F(DiskExpertsTest, GiveTheBitsOfExpertsInMemory) {
  const std::vector<float> expected = logits_in_memory();
  for (const ForesightRule foresight : {ForesightRule::kNone, ForesightRule::kGate, ForesightRule::kTable}) {
    for (const int share : {0, 2, 5}) {
      for (const size_t frames : {1, 9, 500}) {
        const RunFormats on_disk = formats(share, frames * (kExpertBytes + 4096), foresight);
        EXPECT_TRUE(same_bits(logits_alone(demo_model(), sequence_, on_disk), expected))
            << "share " << share << ", frames " << frames << ", foresight " << static_cast<int>(foresight);
      }
    }
  }
}

// Token by token: caches fill, foresight is switched on and off, and every step has the bits of memory.
TEST_F(DiskExpertsTest, GiveTheBitsOfExpertsInMemoryTokenByToken) {
  const auto run = [&](const RunFormats& formats, CacheCounters* counters) {
    std::vector<float> logits;
    spawn_ranks(1, [&](Communicator& comm) {
      const LevelTable levels = unskipped_levels(config_.num_moe_layers());
      SequenceRunner runner(demo_model(), comm, levels, formats);
      const auto length = static_cast<int64_t>(sequence_.token_ids.size());
      logits = runner.run({sequence_}, plan_for(length, 1)).front();
      if (counters != nullptr) *counters = runner.model().disk_residence()->counters();
    });
    return logits;
  };
  RunFormats in_memory{.num_threads = 2};
  in_memory.assignment = assignment(1, 0, 1);
  put_in_memory(*in_memory.assignment);
  const std::vector<float> expected = run(in_memory, nullptr);
  for (const ForesightRule foresight : {ForesightRule::kNone, ForesightRule::kGate, ForesightRule::kTable}) {
    CacheCounters counters;
    EXPECT_TRUE(same_bits(run(formats(0, 40 * kExpertBytes, foresight), &counters), expected));
    EXPECT_GT(counters.num_hits, 0);
    EXPECT_GT(counters.num_misses, 0);
    EXPECT_EQ(counters.num_foreseen > 0, foresight != ForesightRule::kNone);
  }
}

TEST_F(DiskExpertsTest, GiveTheSameBitsOnSeveralRanks) {
  const auto run = [&](bool on_disk) {
    std::vector<float> logits;
    spawn_ranks(2, [&](Communicator& comm) {
      RunFormats of_rank{.num_threads = 1};
      of_rank.assignment = assignment(2, comm.rank(), 3);
      if (!on_disk) put_in_memory(*of_rank.assignment);
      if (on_disk) of_rank.disk = DiskConfig{.directory = folder_, .cache_bytes = 20 * kExpertBytes};
      const LevelTable levels = unskipped_levels(config_.num_moe_layers());
      SequenceRunner runner(demo_model(), comm, levels, of_rank);
      std::vector<TestSequence> mine;
      if (comm.rank() == 0) mine.push_back(sequence_);
      const auto length = static_cast<int64_t>(sequence_.token_ids.size());
      const auto result = runner.run(mine, plan_for(length, 7));
      if (comm.rank() == 0) logits = result.front();
    });
    return logits;
  };
  EXPECT_TRUE(same_bits(run(true), run(false)));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 2) << "a file for each rank";
}

TEST_F(DiskExpertsTest, AreWrittenOnceAndAnewForAnotherPlan) {
  const size_t cache = 20 * kExpertBytes;
  logits_alone(demo_model(), sequence_, formats(2, cache));
  const auto written = std::filesystem::last_write_time(only_file());
  logits_alone(demo_model(), sequence_, formats(2, cache));
  EXPECT_EQ(std::filesystem::last_write_time(only_file()), written);
  logits_alone(demo_model(), sequence_, formats(3, cache));
  EXPECT_NE(std::filesystem::last_write_time(only_file()), written);
}

TEST_F(DiskExpertsTest, AreRefusedWhenTheirFileIsDamaged) {
  const RunFormats on_disk = formats(2, 20 * kExpertBytes);
  EXPECT_EQ(refusal(on_disk), "");
  const auto size = std::filesystem::file_size(only_file());
  {
    std::fstream file(only_file(), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(size / 2));
    file << "damage";
  }
  EXPECT_THAT(refusal(on_disk), HasSubstr("has the hash "));
  std::filesystem::resize_file(only_file(), size - 4096);
  EXPECT_THAT(refusal(on_disk), HasSubstr("but its header speaks of"));
}

TEST_F(DiskExpertsTest, AreRefusedWhereThereIsNoRoom) {
  RunFormats nowhere = formats(2, 20 * kExpertBytes);
  nowhere.disk->directory = folder_ / "none";
  EXPECT_THAT(refusal(nowhere), HasSubstr("is no directory"));
  EXPECT_THAT(refusal(formats(2, 1000)), HasSubstr("residency.cache_mb: 0 MB hold no expert of the disk"));
}

TEST_F(DiskExpertsTest, AreRefusedWithAnotherHashThanTheAssigned) {
  RunFormats on_disk = formats(0, 20 * kExpertBytes);
  on_disk.assignment->slots[1][3].hash = "0123456789abcdef";
  EXPECT_THAT(refusal(on_disk), HasSubstr("expert 3 of MoE layer 1 has the hash "));
  EXPECT_TRUE(std::filesystem::is_empty(folder_)) << "nothing is left of what was begun";
}

}  // namespace
}  // namespace skipper
