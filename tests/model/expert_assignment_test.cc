// Experts in formats and places of their own: what is loaded is what was asked for, and means what it meant in one format.
#include "model/expert_assignment.h"

#include <gmock/gmock.h>

#include <cstring>
#include <set>

#include "base/error.h"
#include "model/expert_hash.h"
#include "tests/model/prompt_fixture.h"
#include "tests/model/sequence_runner.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const WeightFormat kBf16{}, kInt8{WeightKind::kInt8, 64}, kInt4{WeightKind::kInt4Asymmetric, 32};
const WeightFormat kInt2{WeightKind::kInt2Asymmetric, 32};

class ExpertAssignmentTest : public testing::Test {
 protected:
  // Every rank's experts in the format of format_of(expert), even experts on rank 0, odd ones on the last, in descending order.
  template <typename FormatOf>
  ExpertAssignment interleaved(int rank, int world_size, const FormatOf& format_of) const {
    const int num_experts = static_cast<int>(config_.moe.num_experts), num_layers = config_.num_moe_layers();
    std::vector<ExpertHome> homes(static_cast<size_t>(num_experts * num_layers));
    ExpertAssignment assignment{ExpertPlacement::contiguous({num_layers, num_experts, world_size}), {}};
    for (int layer = 0; layer < num_layers; ++layer) {
      std::vector<int32_t> filled(static_cast<size_t>(world_size), 0);
      for (int expert = num_experts - 1; expert >= 0; --expert) {
        const int owner = expert % 2 == 0 ? 0 : world_size - 1;
        homes[static_cast<size_t>(layer * num_experts + expert)] = {owner, filled[static_cast<size_t>(owner)]++};
      }
    }
    assignment.placement = ExpertPlacement::from_homes({num_layers, num_experts, world_size}, std::move(homes));
    for (int layer = 0; layer < num_layers; ++layer) {
      std::vector<AssignedExpert>& slots = assignment.slots.emplace_back();
      for (const int32_t expert : assignment.placement.experts_of(rank, layer)) slots.push_back({format_of(expert)});
    }
    return assignment;
  }

  ExpertAssignment in_blocks(const WeightFormat& format) const {
    const int num_experts = static_cast<int>(config_.moe.num_experts), num_layers = config_.num_moe_layers();
    ExpertAssignment assignment{ExpertPlacement::contiguous({num_layers, num_experts, 1}), {}};
    assignment.slots.assign(static_cast<size_t>(num_layers),
                            std::vector<AssignedExpert>(static_cast<size_t>(num_experts), AssignedExpert{format}));
    return assignment;
  }

  const ModelConfig config_ = load_model_config(demo_model());
  const TestSequence sequence_ = sequence_of(read_prompts(model_fixture("demo_text.safetensors")).front());
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

WeightFormat mixed(int32_t expert) { return std::vector{kBf16, kInt8, kInt4, kInt2}[static_cast<size_t>(expert % 4)]; }

TEST_F(ExpertAssignmentTest, GivesTheBitsOfOneFormatForAllWhenAllHaveIt) {
  for (const WeightFormat& format : {kBf16, kInt8, kInt4, kInt2}) {
    RunFormats set, assigned;
    set.weights.experts = format;
    assigned.assignment = in_blocks(format);
    EXPECT_TRUE(same_bits(logits_alone(demo_model(), sequence_, assigned), logits_alone(demo_model(), sequence_, set)))
        << name_of(format);
  }
}

// With sums at the source and FP32 between ranks, nothing is left that could depend on the place of an expert.
TEST_F(ExpertAssignmentTest, GivesTheSameBitsWhereverExpertsLive) {
  RunFormats formats{.rows = {.payload_format = PayloadFormat::kF32, .combine_dtype = DType::kF32}};
  formats.rows.sum_place = SumPlace::kSource;
  const auto run_on = [&](int num_ranks) {
    std::vector<float> logits;
    spawn_ranks(num_ranks, [&](Communicator& comm) {
      RunFormats of_rank = formats;
      of_rank.assignment = interleaved(comm.rank(), num_ranks, mixed);
      const LevelTable levels = unskipped_levels(config_.num_moe_layers());
      SequenceRunner runner(demo_model(), comm, levels, of_rank);
      std::vector<TestSequence> mine;
      if (comm.rank() == 0) mine.push_back(sequence_);
      const auto length = static_cast<int64_t>(sequence_.token_ids.size());
      const auto result = runner.run(mine, plan_for(length, length));
      if (comm.rank() == 0) logits = result.front();
    });
    return logits;
  };
  const std::vector<float> alone = run_on(1);
  EXPECT_TRUE(same_bits(run_on(2), alone));
  EXPECT_TRUE(same_bits(run_on(3), alone));  // a rank in the middle owns nothing
}

TEST_F(ExpertAssignmentTest, HoldsEachExpertInItsFormat) {
  spawn_ranks(2, [&](Communicator& comm) {
    RunFormats formats;
    formats.assignment = interleaved(comm.rank(), 2, mixed);
    const LevelTable levels = unskipped_levels(config_.num_moe_layers());
    SequenceRunner runner(demo_model(), comm, levels, formats);
    // Even experts are BF16 and int4a-g32 in turn, odd ones int8-g64 and int2a-g32.
    const double expected = comm.rank() == 0 ? (kBf16.bits_per_weight() + kInt4.bits_per_weight()) / 2
                                             : (kInt8.bits_per_weight() + kInt2.bits_per_weight()) / 2;
    EXPECT_DOUBLE_EQ(runner.model().expert_bits_per_weight(), expected);
  });
}

class ExpertHashes : public ExpertAssignmentTest {
 protected:
  std::vector<std::string> hashes(int layer, const std::vector<ExpertSlot>& slots) const {
    ThreadPool workers(2);
    return hashes_of_layer({checkpoint_, config_, formats_}, layer, slots, workers);
  }

  const Checkpoint checkpoint_{demo_model()};
  const WeightConfig formats_;
};

TEST_F(ExpertHashes, DependOnExpertLayerAndFormatButNotOnNeighbours) {
  const std::vector<std::string> together = hashes(1, {{0, kBf16}, {1, kBf16}, {1, kInt4}, {1, kInt8}, {31, kInt2}});
  EXPECT_EQ(std::set<std::string>(together.begin(), together.end()).size(), together.size());
  EXPECT_EQ(hashes(1, {{1, kInt4}}).front(), together[2]);
  EXPECT_NE(hashes(2, {{1, kInt4}}).front(), together[2]);
  EXPECT_TRUE(hashes(0, {}).empty());
  for (const std::string& hash : together) EXPECT_EQ(hash.size(), 16u);
}

TEST_F(ExpertHashes, AreCheckedWhenTheModelIsLoaded) {
  RunFormats formats;
  formats.assignment = in_blocks(kInt8);
  std::string& hash = formats.assignment->slots[1][3].hash;
  hash = hashes(1, {{3, kInt8}}).front();
  const std::vector<float> logits = logits_alone(demo_model(), sequence_, formats);
  EXPECT_FALSE(logits.empty());

  hash[0] = hash[0] == '0' ? '1' : '0';
  try {
    logits_alone(demo_model(), sequence_, formats);
    FAIL() << "an expert of another hash was loaded";
  } catch (const InvalidFile& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("expert 3 of MoE layer 1"), HasSubstr(hash), HasSubstr("make the plan again")));
  }
}

}  // namespace
}  // namespace skipper
