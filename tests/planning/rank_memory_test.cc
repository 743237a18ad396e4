// Against models that are really loaded.
#include "planning/rank_memory.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "cluster/cluster_topology.h"
#include "model/multimodal_model.h"
#include "model/weight_loader.h"
#include "tensor/device_runtime.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

const std::filesystem::path kDemo = SKIPPER_SOURCE_DIR "/models/demo";
const std::filesystem::path kTiny = SKIPPER_SOURCE_DIR "/tests/model/fixtures/tiny_qwen3_moe";

constexpr StepLimits kLimits{.max_tokens = 97, .max_logit_rows = 13};

// Of tensors that the loader makes, small and packed; the embedding stays in the mapping.
size_t loaded_dense_bytes(const std::filesystem::path& directory, const WeightConfig& weights) {
  const ModelConfig model = load_model_config(directory);
  const Checkpoint checkpoint(directory);
  LoadQueue queue;
  const size_t before = allocated_host_bytes();
  const DenseWeights dense = load_dense_weights({checkpoint, model, weights}, queue);
  return allocated_host_bytes() - before;
}

TEST(RankMemory, CountsTheDenseWeightsThatAreLoaded) {
  for (const std::filesystem::path& directory : {kDemo, kTiny}) {
    for (const char* format : {"", "int8-g64", "int4a-g32"}) {
      WeightConfig weights;
      if (*format != '\0') weights.dense = parse_weight_format(format, "test");
      const auto loaded = static_cast<double>(loaded_dense_bytes(directory, weights));
      const auto counted = static_cast<double>(dense_weight_bytes(load_model_config(directory), weights));
      // Small tensors may be stored as F32.
      EXPECT_NEAR(counted, loaded, 0.02 * loaded + 1000.0) << directory << " " << format;
    }
  }
}

// What a model of one rank allocates besides its weights.
size_t made_buffer_bytes(const ModelConfig& model, const std::filesystem::path& directory) {
  size_t made = 0;
  spawn_ranks(1, [&](Communicator& data) {
    const ClusterTopology topology({0});
    const LevelTable levels = unskipped_levels(model.num_moe_layers());
    const size_t before = allocated_host_bytes();
    const MultimodalModel loaded(directory, model, {.data = data, .topology = topology, .levels = levels}, kLimits);
    made = allocated_host_bytes() - before - loaded.weight_memory().expert_bytes - loaded_dense_bytes(directory, {});
  });
  return made;
}

TEST(RankMemory, CountsTheBuffersThatAModelMakes) {
  // Its experts are stored as they are packed: loading needs no memory for turning them.
  const ModelConfig model = load_model_config(kTiny);
  const RankSettings settings{.limits = kLimits, .kv_cache = {.num_blocks = 7}};
  const auto made = static_cast<double>(made_buffer_bytes(model, kTiny));
  const MemoryUse use = host_memory_without_experts(model, settings);
  EXPECT_NEAR(static_cast<double>(use.buffers) / made, 1.0, 0.02) << use.buffers << ", made " << made;
  EXPECT_EQ(use.kv_cache, 7 * KvCache::bytes_per_block(model, settings.kv_cache));
}

TEST(RankMemory, GrowsWithRanksTokensAndImages) {
  const ModelConfig model = load_model_config(kDemo);
  RankSettings settings{.limits = kLimits, .kv_cache = {.num_blocks = 7}};
  const size_t buffers = host_memory_without_experts(model, settings).buffers;
  const size_t on_device = device_memory_without_experts(model, settings).buffers;
  settings.world_size = 3;
  const size_t of_three = host_memory_without_experts(model, settings).buffers;
  EXPECT_GT(of_three, buffers);
  EXPECT_GT(device_memory_without_experts(model, settings).buffers, on_device);
  settings.max_image_pixels = 50176;
  EXPECT_GT(host_memory_without_experts(model, settings).buffers, of_three);
  EXPECT_GT(host_memory_beside_device(model, settings).total_bytes(), 0u);
}

TEST(RankMemory, SetsTheReferenceOfAGuardAside) {
  const ModelConfig model = load_model_config(kDemo);
  RankSettings settings{.limits = kLimits, .kv_cache = {16, 16, DType::kBF16}};
  EXPECT_EQ(host_memory_without_experts(model, settings).reference_experts, 0u);
  settings.reference_experts = WeightFormat{};
  const size_t all = static_cast<size_t>(model.num_moe_layers() * model.moe.num_experts) *
                     stored_expert_bytes({}, model.hidden_size, model.moe.intermediate_size);
  EXPECT_EQ(host_memory_without_experts(model, settings).reference_experts, all);
  settings.world_size = 2;
  const auto of_two = static_cast<double>(host_memory_without_experts(model, settings).reference_experts);
  EXPECT_NEAR(of_two, 0.525 * static_cast<double>(all), 0.01 * static_cast<double>(all));
}

}  // namespace
}  // namespace skipper
