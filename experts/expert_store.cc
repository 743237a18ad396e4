#include "experts/expert_store.h"

#include <glog/logging.h>

#include <algorithm>

#include "experts/gate_up_panels.h"
#include "tensor/device_runtime.h"

namespace skipper {
namespace {

constexpr size_t kAlignment = 64;

size_t aligned_bytes(const WeightFormat& format, const PackedShape& shape) {
  return (packed_bytes(format, shape) + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

std::vector<std::vector<ExpertSlot>> slots_of(const std::vector<std::vector<int32_t>>& experts, const WeightFormat& format) {
  std::vector<std::vector<ExpertSlot>> slots(experts.size());
  for (size_t layer = 0; layer < experts.size(); ++layer) {
    for (const int32_t expert : experts[layer]) slots[layer].push_back({expert, format});
  }
  return slots;
}

ExpertStore::ExpertStore(const ExpertStoreConfig& config) : config_(config) {
  for (const std::vector<ExpertSlot>& slots : config.slots) layers_.push_back(make_layer(slots));
}

ExpertStore::Layer ExpertStore::make_layer(const std::vector<ExpertSlot>& slots) const {
  const PackedShape gate_up = joined_shape({config_.intermediate_size, config_.hidden_size});
  const PackedShape down{config_.hidden_size, config_.intermediate_size};
  size_t num_bytes = 0;
  for (const ExpertSlot& slot : slots) num_bytes += aligned_bytes(slot.format, gate_up) + aligned_bytes(slot.format, down);

  Layer layer;
  layer.memory = allocate(num_bytes, Device::host());
  std::byte* next = layer.memory.get();
  const auto take = [&](const WeightFormat& format, const PackedShape& shape) {
    PackedMatrix matrix = borrow_packed(format, shape, next);
    if (format.kind == WeightKind::kBF16) matrix.activations = config_.bf16_activations;
    if (format.kind == WeightKind::kF32) matrix.activations = ActivationFormat::kF32;
    next += aligned_bytes(format, shape);
    return matrix;
  };
  for (const ExpertSlot& slot : slots) {
    layer.gate_up.push_back(take(slot.format, gate_up));
    layer.down.push_back(take(slot.format, down));
  }
  return layer;
}

int ExpertStore::num_local_experts(int layer) const { return static_cast<int>(layer_at(layer).down.size()); }

size_t ExpertStore::num_bytes() const {
  size_t sum = 0;
  for (const Layer& layer : layers_) {
    for (const PackedMatrix& matrix : layer.gate_up) sum += matrix.num_bytes();
    for (const PackedMatrix& matrix : layer.down) sum += matrix.num_bytes();
  }
  return sum;
}

std::span<const ExpertSlot> ExpertStore::slots(int layer) const {
  layer_at(layer);
  return config_.slots[static_cast<size_t>(layer)];
}

ExpertHandle ExpertStore::handle(const ExpertId& id) const {
  const std::span<const ExpertSlot> local = slots(id.layer);
  const auto found = std::ranges::find(local, id.expert, &ExpertSlot::expert);
  CHECK(found != local.end()) << "expert " << id.expert << " of MoE layer " << id.layer << " is not on this rank";
  return {.slot = static_cast<int32_t>(found - local.begin()), .format = found->format};
}

ExpertMatrices ExpertStore::matrices(int layer, int slot) {
  CHECK(!frozen_) << "expert weights are immutable after loading";
  const Layer& home = layer_at(layer);
  return {home.gate_up.at(static_cast<size_t>(slot)), home.down.at(static_cast<size_t>(slot))};
}

std::span<const PackedMatrix> ExpertStore::gate_up(int layer) const {
  CHECK(frozen_) << "expert weights are used before they are loaded";
  return layer_at(layer).gate_up;
}

std::span<const PackedMatrix> ExpertStore::down(int layer) const {
  CHECK(frozen_) << "expert weights are used before they are loaded";
  return layer_at(layer).down;
}

const ExpertStore::Layer& ExpertStore::layer_at(int layer) const {
  CHECK(layer >= 0 && layer < num_layers()) << "MoE layer " << layer << " of " << num_layers();
  return layers_[static_cast<size_t>(layer)];
}

}  // namespace skipper
