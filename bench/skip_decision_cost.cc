#include "bench/skip_decision_cost.h"

#include <algorithm>
#include <random>

#include "bench/gpu_clock.h"
#include "expert_parallel/cuda/device_skip_table.h"
#include "expert_parallel/token_policies.h"
#include "kernels/cuda/routing.h"
#include "model/cuda/device_linear.h"

namespace skipper::cuda {
namespace {

constexpr int kRunsPerGraph = 50;

Tensor random_logits(int64_t num_tokens, int64_t num_experts, Stream& stream) {
  Tensor logits = Tensor::empty({num_tokens, num_experts}, DType::kF32);
  std::mt19937 generator(5);
  std::normal_distribution<float> normal;
  for (float& logit : logits.span<float>()) logit = normal(generator);
  return upload(logits, stream);
}

Tensor filled_bytes(int64_t count, uint8_t value, Stream& stream) {
  Tensor bytes = Tensor::empty({count}, DType::kU8);
  std::ranges::fill(bytes.span<uint8_t>(), value);
  return upload(bytes, stream);
}

}  // namespace

double routing_seconds(const ModelConfig& model, const LevelTable& levels, uint8_t level, int64_t num_tokens, Stream& stream) {
  const Device device = stream.device();
  const int64_t num_experts = model.moe.num_experts, top_k = model.moe.top_k;
  DeviceSkipTable table({model.num_moe_layers(), num_experts}, device);
  table.upload(levels, stream);
  const Tensor logits = random_logits(num_tokens, num_experts, stream);
  const Tensor zeros = filled_bytes(num_tokens, 0, stream), token_level = filled_bytes(num_tokens, level, stream);
  const Tensor step_token = Tensor::zeros({num_tokens}, DType::kI32, device);
  const Tensor skip_rows = table.skip_rows(0), expert_scale = table.expert_scale(0);
  const Tensor rank_of_expert = Tensor::zeros({num_experts}, DType::kI32, device);
  const Tensor hop_of_rank = Tensor::zeros({1}, DType::kI32, device);
  Tensor expert_ids = Tensor::empty({num_tokens, top_k}, DType::kI32, device);
  Tensor routed_ids = Tensor::empty(expert_ids.shape(), DType::kI32, device);
  Tensor expert_weights = Tensor::empty(expert_ids.shape(), DType::kF32, device);
  Tensor usage = Tensor::zeros({num_tokens, kNumGpuUsageColumns}, DType::kI32, device);
  Tensor pair_counts = Tensor::zeros({kNumTokenPhases, kNumTokenClasses, 2}, DType::kI64, device);
  return graph_seconds(kRunsPerGraph, [&](int) {
    route_tokens({.logits = logits,
                  .token_class = zeros,
                  .level = token_level,
                  .phase = zeros,
                  .step_token = step_token,
                  .skip_rows = skip_rows,
                  .expert_scale = expert_scale,
                  .rank_of_expert = rank_of_expert,
                  .hop_of_rank = hop_of_rank,
                  .normalization = model.moe.normalization},
                 {expert_ids, routed_ids, expert_weights, usage, pair_counts}, stream);
  }, stream);
}

}  // namespace skipper::cuda
