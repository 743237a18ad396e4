#include "expert_parallel/cuda/device_skip_table.h"

#include <glog/logging.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/error.h"
#include "expert_parallel/token_rules.h"
#include "kernels/cuda/routing.h"

namespace skipper::cuda {

namespace {

constexpr int64_t kRowsPerLevel = int64_t{kNumTokenClasses} * kNumTokenPhases;

void refuse(bool is_used, size_t level, const std::string& key) {
  if (!is_used) return;
  throw InvalidRequest("level " + std::to_string(level) + " uses " + key +
                           ", which runs on the CPU only; leave it out or serve with --device cpu",
                       "levels[" + std::to_string(level) + "]." + key);
}

SkipRow skip_row(const TokenRules& rules) {
  return {.pair_rule = static_cast<int32_t>(rules.pair_rule),
          .alpha = rules.alpha,
          .tau = rules.tau,
          .kept_k = rules.kept_k,
          .beta = rules.beta,
          .tau_dst = {rules.tau_dst[0], rules.tau_dst[1], rules.tau_dst[2]},
          .destination_score = static_cast<int32_t>(rules.destination_score),
          .protect_margin = rules.protect_margin,
          .exempt_local = rules.exempt_local ? 1 : 0,
          .protect_top1 = rules.protect_top1 ? 1 : 0,
          .renormalize = rules.renormalize ? 1 : 0};
}

// The rows of one level in one layer, in the order of their index: class, then phase.
void write_rows(const OperatingPoint& point, int moe_layer, std::byte* rows) {
  for (uint8_t c = 0; c < kNumTokenClasses; ++c) {
    for (uint8_t phase = 0; phase < kNumTokenPhases; ++phase) {
      const SkipRow row =
          skip_row(token_rules(point, {.moe_layer = moe_layer, .token_class = TokenClass{c}, .phase = TokenPhase{phase}}));
      std::memcpy(rows, &row, sizeof(row));
      rows += sizeof(row);
    }
  }
}

void write_scale(const OperatingPoint& point, int moe_layer, std::span<float> scale) {
  const auto rules = token_rules(point, {.moe_layer = moe_layer});
  if (rules.expert_scale.empty()) return;
  CHECK_EQ(rules.expert_scale.size(), scale.size());
  std::ranges::copy(rules.expert_scale, scale.begin());
}

}  // namespace

void require_rules_of_gpu(const LevelTable& levels) {
  for (size_t level = 0; level < levels.levels.size(); ++level) {
    const OperatingPoint& point = levels.levels[level];
    refuse(point.pair_rule == PairRule::kSimilar, level, "expert_similarity");
    refuse(point.protect_attention > 0.0f, level, "protect_attention");
    refuse(point.uses_shadows(), level, "tau_shadow");
    refuse(point.rank_capacity > 0.0f, level, "rank_capacity");
    refuse(point.decode_base_k > 0, level, "decode_base_k");
    refuse(point.decode_rank_experts > 0, level, "decode_rank_experts");
    const auto bypasses = [](const std::vector<uint8_t>& layers) { return !layers.empty(); };
    refuse(std::ranges::any_of(point.identity_bypass, bypasses), level, "identity_bypass");
  }
}

DeviceSkipTable::DeviceSkipTable(const SkipTableShape& shape, Device device) : shape_(shape) {
  const Shape rows{shape.num_moe_layers, kMaxDeviceLevels * kRowsPerLevel, sizeof(SkipRow)};
  const Shape scales{shape.num_moe_layers, kMaxDeviceLevels, shape.num_experts};
  skip_rows_ = Tensor::zeros(rows, DType::kU8, device);
  expert_scale_ = Tensor::zeros(scales, DType::kF32, device);
  host_skip_rows_ = Tensor::zeros(rows, DType::kU8);
  host_expert_scale_ = Tensor::zeros(scales, DType::kF32);
}

void DeviceSkipTable::upload(const LevelTable& levels, Stream& stream) {
  if (is_uploaded_ && levels.version == version_) return;
  require_rules_of_gpu(levels);
  CHECK_LE(levels.num_levels(), kMaxDeviceLevels);
  std::ranges::fill(host_skip_rows_.span<uint8_t>(), uint8_t{0});
  std::ranges::fill(host_expert_scale_.span<float>(), 1.0f);
  for (int layer = 0; layer < shape_.num_moe_layers; ++layer) {
    Tensor rows = host_skip_rows_.at(layer);
    Tensor scales = host_expert_scale_.at(layer);
    for (int level = 0; level < levels.num_levels(); ++level) {
      const OperatingPoint& point = levels.levels[static_cast<size_t>(level)];
      write_rows(point, layer, rows.bytes() + level * kRowsPerLevel * static_cast<int64_t>(sizeof(SkipRow)));
      write_scale(point, layer, {scales.row<float>(level), static_cast<size_t>(shape_.num_experts)});
    }
  }
  copy_to_gpu(stream);
  is_uploaded_ = true;
  version_ = levels.version;
}

// From ordinary host memory: the copy has read it when the call returns.
void DeviceSkipTable::copy_to_gpu(Stream& stream) {
  const auto copy = [&](const Tensor& from, Tensor& to) {
    copy_bytes({from.bytes(), from.device(), to.bytes(), to.device(), from.num_bytes()}, stream);
  };
  copy(host_skip_rows_, skip_rows_);
  copy(host_expert_scale_, expert_scale_);
}

}  // namespace skipper::cuda
