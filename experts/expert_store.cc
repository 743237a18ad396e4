#include "experts/expert_store.h"

#include <glog/logging.h>

#include <algorithm>

namespace skipper {

ExpertStore::ExpertStore(const ExpertStoreConfig& config) : config_(config) {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  for (const std::vector<int32_t>& experts : config.experts) {
    const auto num_local = static_cast<int64_t>(experts.size());
    layers_.push_back({.gate_up = Tensor::empty({num_local, 2 * intermediate, hidden}, DType::kBF16),
                       .down = Tensor::empty({num_local, hidden, intermediate}, DType::kBF16)});
  }
}

int ExpertStore::num_local_experts(int layer) const { return static_cast<int>(layer_at(layer).gate_up.dim(0)); }

size_t ExpertStore::num_bytes() const {
  size_t sum = 0;
  for (const Layer& layer : layers_) sum += layer.gate_up.num_bytes() + layer.down.num_bytes();
  return sum;
}

ExpertHandle ExpertStore::handle(const ExpertId& id) const {
  layer_at(id.layer);
  const std::vector<int32_t>& experts = config_.experts[static_cast<size_t>(id.layer)];
  const auto found = std::find(experts.begin(), experts.end(), id.expert);
  CHECK(found != experts.end()) << "expert " << id.expert << " of MoE layer " << id.layer << " is not on this rank";
  return {.slot = static_cast<int32_t>(found - experts.begin())};
}

Tensor ExpertStore::gate_up(int layer, int slot) {
  CHECK(!frozen_) << "expert weights are immutable after loading";
  return layer_at(layer).gate_up.at(slot);
}

Tensor ExpertStore::down(int layer, int slot) {
  CHECK(!frozen_) << "expert weights are immutable after loading";
  return layer_at(layer).down.at(slot);
}

const Tensor& ExpertStore::gate_up_arena(int layer) const {
  CHECK(frozen_) << "expert weights are used before they are loaded";
  return layer_at(layer).gate_up;
}

const Tensor& ExpertStore::down_arena(int layer) const {
  CHECK(frozen_) << "expert weights are used before they are loaded";
  return layer_at(layer).down;
}

const ExpertStore::Layer& ExpertStore::layer_at(int layer) const {
  CHECK(layer >= 0 && layer < num_layers()) << "MoE layer " << layer << " of " << num_layers();
  return layers_[static_cast<size_t>(layer)];
}

}  // namespace skipper
