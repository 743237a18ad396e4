#include "model/weight_loader.h"

#include <gmock/gmock.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tests/model/edited_checkpoint.h"
#include "tests/model/prompt_fixture.h"

namespace skipper {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// The experts of one rank of `world_size`.
struct LoadedExperts {
  LoadedExperts(const Checkpoint& checkpoint, const ModelConfig& config, int rank, int world_size)
      : placement(ExpertPlacement::contiguous({config.num_moe_layers(), static_cast<int>(config.moe.num_experts), world_size})),
        store({config.hidden_size, config.moe.intermediate_size, placement.experts_of(rank)}) {
    load_experts({checkpoint, config, placement, rank}, store);
  }

  ExpertPlacement placement;
  ExpertStore store;
};

size_t bytes_of_all_experts(const ModelConfig& config) {
  const int64_t weights = 3 * config.hidden_size * config.moe.intermediate_size;
  return static_cast<size_t>(weights * config.moe.num_experts * config.num_moe_layers()) * size_of(DType::kBF16);
}

float value(const Tensor& tensor, int64_t row, int64_t column) {
  return static_cast<float>(tensor.row<bf16>(row)[column]);
}

TEST(WeightLoader, TurnsFusedExpertsRound) {
  const ModelConfig config = load_model_config(demo_model());
  const Checkpoint checkpoint(demo_model());
  const LoadedExperts loaded(checkpoint, config, 1, 3);
  const int64_t width = config.moe.intermediate_size;
  const Tensor gate_up = checkpoint.get("model.language_model.layers.2.mlp.experts.gate_up_proj", {32, 256, 2 * width});
  const Tensor down = checkpoint.get("model.language_model.layers.2.mlp.experts.down_proj", {32, width, 256});
  const std::vector<int32_t>& mine = loaded.placement.experts_of(1, 2);
  ASSERT_FALSE(mine.empty());
  for (size_t slot = 0; slot < mine.size(); ++slot) {
    const Tensor stored = loaded.store.gate_up_arena(2).at(static_cast<int64_t>(slot));
    const Tensor stored_down = loaded.store.down_arena(2).at(static_cast<int64_t>(slot));
    for (const int64_t i : {int64_t{0}, int64_t{41}, width - 1}) {
      for (const int64_t h : {0, 100, 255}) {
        EXPECT_EQ(value(stored, i, h), value(gate_up.at(mine[slot]), h, i));
        EXPECT_EQ(value(stored, i + width, h), value(gate_up.at(mine[slot]), h, i + width));
        EXPECT_EQ(value(stored_down, h, i), value(down.at(mine[slot]), i, h));
      }
    }
  }
}

TEST(WeightLoader, JoinsGateAndUpOfSeparateExperts) {
  const ModelConfig config = load_model_config(model_fixture("tiny_qwen3_moe"));
  const Checkpoint checkpoint(model_fixture("tiny_qwen3_moe"));
  const LoadedExperts loaded(checkpoint, config, 0, 1);
  // MoE layer 1 is decoder layer 2: layer 1 is dense.
  const std::string prefix = "model.layers.2.mlp.experts.6.";
  const Tensor gate = checkpoint.get(prefix + "gate_proj.weight", {24, 32});
  const Tensor up = checkpoint.get(prefix + "up_proj.weight", {24, 32});
  const Tensor stored = loaded.store.gate_up_arena(1).at(6);
  EXPECT_EQ(std::memcmp(stored.bytes(), gate.bytes(), gate.num_bytes()), 0);
  EXPECT_EQ(std::memcmp(stored.slice(24, 48).bytes(), up.bytes(), up.num_bytes()), 0);
}

TEST(WeightLoader, GivesEveryExpertToOneRankAndNoneToRanksBeyond) {
  const ModelConfig config = load_model_config(model_fixture("tiny_qwen3_moe"));
  const Checkpoint checkpoint(model_fixture("tiny_qwen3_moe"));
  for (const int world_size : {1, 2, 3, 4, 8}) {
    size_t bytes = 0;
    for (int rank = 0; rank < world_size; ++rank) bytes += LoadedExperts(checkpoint, config, rank, world_size).store.num_bytes();
    EXPECT_EQ(bytes, bytes_of_all_experts(config)) << world_size << " ranks";
  }
}

TEST(WeightLoader, HoldsEachWeightOnceAndOnlyItsShareOfTheExperts) {
  const ModelConfig config = load_model_config(demo_model());
  for (const int world_size : {1, 2, 3, 4}) {
    const Checkpoint checkpoint(demo_model());
    const DenseWeights dense = load_dense_weights(checkpoint, config);
    const LoadedExperts loaded(checkpoint, config, world_size - 1, world_size);
    const size_t resident = checkpoint.resident_bytes();
    EXPECT_GE(resident, dense.mapped_bytes);
    // Pages of the mapping beyond the dense weights' count as the experts'.
    const double held = static_cast<double>(loaded.store.num_bytes() + resident - dense.mapped_bytes);
    const double share = static_cast<double>(bytes_of_all_experts(config)) *
                         loaded.placement.max_local_experts() / static_cast<double>(config.moe.num_experts);
    EXPECT_LE(held, 1.1 * share) << world_size << " ranks, mapping " << resident << ", dense " << dense.mapped_bytes;
  }
}

TEST(WeightLoader, NamesTheTensorThatIsMissing) {
  EditedCheckpoint checkpoint(demo_model());
  checkpoint.edit("config.json", [](json& config) { config["tie_word_embeddings"] = false; });
  const ModelConfig config = load_model_config(checkpoint.path());
  const Checkpoint files(checkpoint.path());
  EXPECT_THAT([&] { load_dense_weights(files, config); }, ThrowsMessage<InvalidFile>(HasSubstr("lm_head.weight")));
}

TEST(WeightLoader, NamesBothShapesOfATensorThatDoesNotFit) {
  EditedCheckpoint checkpoint(demo_model());
  checkpoint.edit("config.json", [](json& config) { config["text_config"]["num_key_value_heads"] = 4; });
  const ModelConfig config = load_model_config(checkpoint.path());
  const Checkpoint files(checkpoint.path());
  EXPECT_THAT([&] { load_dense_weights(files, config); },
              ThrowsMessage<InvalidFile>(AllOf(HasSubstr("layers.0.self_attn.k_proj.weight"), HasSubstr("[128, 256]"),
                                               HasSubstr("[256, 256]"))));
}

TEST(WeightLoader, NamesTheExpertTensorThatDoesNotFit) {
  EditedCheckpoint checkpoint(demo_model());
  checkpoint.edit("config.json", [](json& config) { config["text_config"]["moe_intermediate_size"] = 100; });
  const ModelConfig config = load_model_config(checkpoint.path());
  const Checkpoint files(checkpoint.path());
  EXPECT_THAT([&] { LoadedExperts(files, config, 0, 1); },
              ThrowsMessage<InvalidFile>(AllOf(HasSubstr("layers.0.mlp.experts.gate_up_proj"), HasSubstr("[32, 256, 200]"))));
}

}  // namespace
}  // namespace skipper
