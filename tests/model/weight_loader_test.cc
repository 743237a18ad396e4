#include "model/weight_loader.h"

#include <gmock/gmock.h>

#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/checkpoint_reader.h"
#include "tests/model/edited_checkpoint.h"
#include "tests/model/prompt_fixture.h"

namespace skipper {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// The weights of one rank of `world_size`, loaded by `num_threads`.
struct LoadedModel {
  LoadedModel(const Checkpoint& checkpoint, const ModelConfig& config, int rank, int world_size,
              const WeightConfig& formats = {}, int num_threads = 2)
      : placement(ExpertPlacement::contiguous({config.num_moe_layers(), static_cast<int>(config.moe.num_experts), world_size})),
        store(expert_store_config({checkpoint, config, formats}, placement, rank)) {
    ThreadPool workers(num_threads);
    LoadQueue queue;
    const WeightSource source{checkpoint, config, formats};
    dense = load_dense_weights(source, queue);
    load_experts(source, store, queue);
    queue.run(workers, [this](size_t done, size_t total) { progress.push_back({done, total}); });
    store.freeze();
    mapped_bytes = settle_mapping(source, dense.weights.embedding);
  }

  ExpertPlacement placement;
  ExpertStore store;
  DenseWeights dense;
  std::vector<std::pair<size_t, size_t>> progress;
  size_t mapped_bytes = 0;
};

size_t bytes_of_all_experts(const ModelConfig& config) {
  const int64_t weights = 3 * config.hidden_size * config.moe.intermediate_size;
  return static_cast<size_t>(weights * config.moe.num_experts * config.num_moe_layers()) * size_of(DType::kBF16);
}

float value(const Tensor& tensor, int64_t row, int64_t column) {
  return static_cast<float>(tensor.row<bf16>(row)[column]);
}

// Row of gate (or, in odd panels, of up) in the joined matrix.
int64_t gate_row(int64_t row) { return row / kPanelRows * 2 * kPanelRows + row % kPanelRows; }
int64_t up_row(int64_t row) { return gate_row(row) + kPanelRows; }

TEST(WeightLoader, TurnsFusedExpertsRound) {
  const ModelConfig config = load_model_config(demo_model());
  const Checkpoint checkpoint(demo_model());
  const LoadedModel loaded(checkpoint, config, 1, 3);
  const int64_t width = config.moe.intermediate_size;
  const Tensor gate_up = checkpoint.get("model.language_model.layers.2.mlp.experts.gate_up_proj", {32, 256, 2 * width});
  const Tensor down = checkpoint.get("model.language_model.layers.2.mlp.experts.down_proj", {32, width, 256});
  const std::vector<int32_t>& mine = loaded.placement.experts_of(1, 2);
  ASSERT_FALSE(mine.empty());
  for (size_t slot = 0; slot < mine.size(); ++slot) {
    const Tensor stored = unpack(loaded.store.gate_up(2)[slot]);
    const Tensor stored_down = unpack(loaded.store.down(2)[slot]);
    for (const int64_t i : {int64_t{0}, int64_t{41}, width - 1}) {
      for (const int64_t h : {0, 100, 255}) {
        EXPECT_EQ(stored.row<float>(gate_row(i))[h], value(gate_up.at(mine[slot]), h, i));
        EXPECT_EQ(stored.row<float>(up_row(i))[h], value(gate_up.at(mine[slot]), h, i + width));
        EXPECT_EQ(stored_down.row<float>(h)[i], value(down.at(mine[slot]), i, h));
      }
    }
  }
}

TEST(WeightLoader, JoinsGateAndUpOfSeparateExperts) {
  const ModelConfig config = load_model_config(model_fixture("tiny_qwen3_moe"));
  const Checkpoint checkpoint(model_fixture("tiny_qwen3_moe"));
  const LoadedModel loaded(checkpoint, config, 0, 1);
  // MoE layer 1 is decoder layer 2: layer 1 is dense.
  const std::string prefix = "model.layers.2.mlp.experts.6.";
  const Tensor gate = checkpoint.get(prefix + "gate_proj.weight", {24, 32});
  const Tensor up = checkpoint.get(prefix + "up_proj.weight", {24, 32});
  const Tensor stored = unpack(loaded.store.gate_up(1)[6]);
  for (int64_t row = 0; row < 24; ++row) {
    for (int64_t column = 0; column < 32; ++column) {
      ASSERT_EQ(stored.row<float>(gate_row(row))[column], value(gate, row, column));
      ASSERT_EQ(stored.row<float>(up_row(row))[column], value(up, row, column));
    }
  }
}

TEST(WeightLoader, GivesEveryExpertToOneRankAndNoneToRanksBeyond) {
  const ModelConfig config = load_model_config(model_fixture("tiny_qwen3_moe"));
  const Checkpoint checkpoint(model_fixture("tiny_qwen3_moe"));
  for (const int world_size : {1, 2, 3, 4, 8}) {
    int64_t num_experts = 0;
    for (int rank = 0; rank < world_size; ++rank) {
      const LoadedModel loaded(checkpoint, config, rank, world_size);
      for (int layer = 0; layer < config.num_moe_layers(); ++layer) num_experts += loaded.store.num_local_experts(layer);
    }
    EXPECT_EQ(num_experts, config.moe.num_experts * config.num_moe_layers()) << world_size << " ranks";
  }
}

TEST(WeightLoader, HoldsEachWeightOnceAndOnlyItsShareOfTheExperts) {
  const ModelConfig config = load_model_config(demo_model());
  for (const int world_size : {1, 2, 3, 4}) {
    const Checkpoint checkpoint(demo_model());
    const LoadedModel loaded(checkpoint, config, world_size - 1, world_size);
    const size_t resident = checkpoint.resident_bytes();
    EXPECT_EQ(loaded.mapped_bytes, static_cast<size_t>(config.vocab_size * config.hidden_size) * size_of(DType::kBF16));
    EXPECT_GE(resident, loaded.mapped_bytes);
    // Pages of the mapping beyond the embedding's count as the experts'.
    const double held = static_cast<double>(loaded.store.num_bytes() + resident - loaded.mapped_bytes);
    const double share = static_cast<double>(bytes_of_all_experts(config)) *
                         loaded.placement.max_local_experts() / static_cast<double>(config.moe.num_experts);
    EXPECT_LE(held, 1.1 * share) << world_size << " ranks, mapping " << resident << ", embedding " << loaded.mapped_bytes;
  }
}

TEST(WeightLoader, HoldsDenseWeightsInTheBytesOfTheCheckpointAndLessWhenQuantised) {
  const ModelConfig config = load_model_config(model_fixture("tiny_qwen3_moe"));
  const Checkpoint checkpoint(model_fixture("tiny_qwen3_moe"));
  const WeightConfig int8{.dense = parse_weight_format("int8-g32", "dense")};
  const size_t as_stored = LoadedModel(checkpoint, config, 0, 1).dense.packed_bytes;
  const size_t quantised = LoadedModel(checkpoint, config, 0, 1, int8).dense.packed_bytes;
  EXPECT_LT(quantised, as_stored * 6 / 10);
  EXPECT_GT(quantised, as_stored / 2);
}

bool same_or_absent(const Tensor& a, const Tensor& b) {
  if (!a.defined()) return !b.defined();
  return a.num_bytes() == b.num_bytes() && std::memcmp(a.bytes(), b.bytes(), a.num_bytes()) == 0;
}

bool same_codes(const PackedMatrix& a, const PackedMatrix& b) {
  return a.format == b.format && same_or_absent(a.codes, b.codes) && same_or_absent(a.scales, b.scales) &&
         same_or_absent(a.zeros, b.zeros);
}

TEST(WeightLoader, MakesTheSameCodesWithAnyNumberOfThreads) {
  const ModelConfig config = load_model_config(demo_model());
  const Checkpoint checkpoint(demo_model());
  const WeightConfig formats{.experts = parse_weight_format("int4a-g32", "experts"),
                             .dense = parse_weight_format("int8-g64", "dense")};
  const LoadedModel alone(checkpoint, config, 1, 4, formats, 1);
  const LoadedModel shared(checkpoint, config, 1, 4, formats, 3);
  EXPECT_TRUE(same_codes(alone.dense.weights.head.weight, shared.dense.weights.head.weight));
  EXPECT_TRUE(same_codes(alone.dense.weights.layers[3].attention.q.weight, shared.dense.weights.layers[3].attention.q.weight));
  EXPECT_EQ(alone.dense.weights.head.weight.format, *formats.dense);
  for (size_t slot = 0; slot < alone.store.down(0).size(); ++slot) {
    EXPECT_EQ(alone.store.down(0)[slot].format, *formats.experts);
    EXPECT_TRUE(same_codes(alone.store.down(0)[slot], shared.store.down(0)[slot]));
    EXPECT_TRUE(same_codes(alone.store.gate_up(0)[slot], shared.store.gate_up(0)[slot]));
  }
}

TEST(WeightLoader, TellsHowFarItIs) {
  const ModelConfig config = load_model_config(demo_model());
  const Checkpoint checkpoint(demo_model());
  const LoadedModel loaded(checkpoint, config, 0, 1);
  ASSERT_FALSE(loaded.progress.empty());
  EXPECT_EQ(loaded.progress.back().first, loaded.progress.back().second);
  EXPECT_GT(loaded.progress.back().second, bytes_of_all_experts(config));
}

TEST(LoadQueue, ThrowsTheEarliestErrorOnWhateverThreadItArose) {
  ThreadPool workers(3);
  LoadQueue queue;
  for (int i = 0; i < 20; ++i) {
    queue.add(1, [i] {
      if (i >= 7) throw InvalidFile("tensor " + std::to_string(i));
    });
  }
  EXPECT_THAT([&] { queue.run(workers, nullptr); }, ThrowsMessage<InvalidFile>(HasSubstr("tensor 7")));
}

TEST(WeightLoader, NamesATensorThatCannotBeQuantised) {
  Tensor weights = Tensor::zeros({16, 32}, DType::kBF16);
  weights.data<bf16>()[33] = bf16(std::numeric_limits<float>::infinity());
  const WeightFormat int8 = parse_weight_format("int8-g32", "dense");
  EXPECT_THAT([&] { packable("model.q_proj.weight", weights, int8); },
              ThrowsMessage<InvalidFile>(AllOf(HasSubstr("model.q_proj.weight"), HasSubstr("int8-g32"))));
  EXPECT_NO_THROW(packable("model.q_proj.weight", weights, WeightFormat()));
  weights.data<bf16>()[33] = bf16(3.0e38f);
  EXPECT_NO_THROW(packable("model.q_proj.weight", weights, int8));
}

TEST(WeightLoader, RefusesOtherFormatsThanThoseOfAQuantisedCheckpoint) {
  ModelConfig config = load_model_config(model_fixture("tiny_qwen3_moe"));
  const WeightFormat int4 = parse_weight_format("int4a-g32", "experts");
  const WeightFormat int8 = parse_weight_format("int8-g64", "dense");
  EXPECT_NO_THROW(check_formats(config, {.experts = int8, .dense = int8}));
  config.quantization = QuantizedFormats{.source_fingerprint = "", .experts = int4, .expert_formats = {}, .dense = {}};
  EXPECT_NO_THROW(check_formats(config, {}));
  EXPECT_NO_THROW(check_formats(config, {.experts = int4, .dense = int8}));
  EXPECT_THAT([&] { check_formats(config, {.experts = int8}); },
              ThrowsMessage<InvalidRequest>(AllOf(HasSubstr("int4a-g32"), HasSubstr("int8-g64"), HasSubstr("experts"))));
  config.quantization->expert_formats[{2, 1}] = int8;
  EXPECT_THROW(check_formats(config, {.experts = int4}), InvalidRequest);
  config.quantization->dense = int4;
  EXPECT_THROW(check_formats(config, {.dense = int8}), InvalidRequest);
}

TEST(WeightLoader, RefusesToMapACheckpointThatIsNotPacked) {
  const ModelConfig config = load_model_config(model_fixture("tiny_qwen3_moe"));
  EXPECT_THAT([&] { check_formats(config, {.residence = WeightResidence::kMapped}); },
              ThrowsMessage<InvalidRequest>(AllOf(HasSubstr("weights.residence"), HasSubstr("skipper quantize"))));
}

TEST(WeightLoader, NamesTheTensorThatIsMissing) {
  EditedCheckpoint checkpoint(demo_model());
  checkpoint.edit("config.json", [](json& config) { config["tie_word_embeddings"] = false; });
  const ModelConfig config = load_model_config(checkpoint.path());
  const Checkpoint files(checkpoint.path());
  EXPECT_THAT([&] { LoadedModel(files, config, 0, 1); }, ThrowsMessage<InvalidFile>(HasSubstr("lm_head.weight")));
}

TEST(WeightLoader, NamesBothShapesOfATensorThatDoesNotFit) {
  EditedCheckpoint checkpoint(demo_model());
  checkpoint.edit("config.json", [](json& config) { config["text_config"]["num_key_value_heads"] = 4; });
  const ModelConfig config = load_model_config(checkpoint.path());
  const Checkpoint files(checkpoint.path());
  EXPECT_THAT([&] { LoadedModel(files, config, 0, 1); },
              ThrowsMessage<InvalidFile>(AllOf(HasSubstr("layers.0.self_attn.k_proj.weight"), HasSubstr("[128, 256]"),
                                               HasSubstr("[256, 256]"))));
}

TEST(WeightLoader, NamesTheExpertTensorThatDoesNotFit) {
  EditedCheckpoint checkpoint(demo_model());
  checkpoint.edit("config.json", [](json& config) { config["text_config"]["moe_intermediate_size"] = 100; });
  const ModelConfig config = load_model_config(checkpoint.path());
  const Checkpoint files(checkpoint.path());
  EXPECT_THAT([&] { LoadedModel(files, config, 0, 1); },
              ThrowsMessage<InvalidFile>(AllOf(HasSubstr("layers.0.mlp.experts.gate_up_proj"), HasSubstr("[32, 256, 200]"))));
}

}  // namespace
}  // namespace skipper
