#include "experts/expert_store.h"

#include <glog/logging.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "experts/gate_up_panels.h"
#include "tensor/device_runtime.h"

namespace skipper {
namespace {

constexpr size_t kAlignment = 64;

size_t aligned_bytes(const WeightFormat& format, const PackedShape& shape) {
  return (packed_bytes(format, shape) + kAlignment - 1) / kAlignment * kAlignment;
}

PackedShape gate_up_shape(const ExpertStoreConfig& config) {
  return joined_shape({config.intermediate_size, config.hidden_size});
}

PackedShape down_shape(const ExpertStoreConfig& config) { return {config.hidden_size, config.intermediate_size}; }

void copy_elements(const Tensor& from, Tensor& to) {
  if (from.defined()) std::memcpy(to.bytes(), from.bytes(), from.num_bytes());
}

// To memory of its own; what lies in the mapping stays there.
void move_to(const PackedMatrix& from, PackedMatrix& to) {
  if (!to.defined()) {
    to = from;
    return;
  }
  copy_elements(from.codes, to.codes);
  copy_elements(from.scales, to.scales);
  copy_elements(from.zeros, to.zeros);
}

size_t bytes_of_tier(const ExpertStoreConfig& config, ExpertTier tier) {
  size_t sum = 0;
  for (const std::vector<ExpertSlot>& slots : config.slots) {
    for (const ExpertSlot& slot : slots) {
      if (slot.tier != tier) continue;
      sum += packed_bytes(slot.format, gate_up_shape(config)) + packed_bytes(slot.format, down_shape(config));
    }
  }
  return sum;
}

}  // namespace

std::vector<std::vector<ExpertSlot>> slots_of(const std::vector<std::vector<int32_t>>& experts, const WeightFormat& format) {
  std::vector<std::vector<ExpertSlot>> slots(experts.size());
  for (size_t layer = 0; layer < experts.size(); ++layer) {
    for (const int32_t expert : experts[layer]) slots[layer].push_back({expert, format});
  }
  return slots;
}

size_t stored_expert_bytes(const WeightFormat& format, int64_t hidden_size, int64_t intermediate_size) {
  const ExpertStoreConfig config{.hidden_size = hidden_size, .intermediate_size = intermediate_size, .slots = {}};
  return aligned_bytes(format, gate_up_shape(config)) + aligned_bytes(format, down_shape(config));
}

ExpertStore::ExpertStore(const ExpertStoreConfig& config) : config_(config) {
  for (const std::vector<ExpertSlot>& slots : config.slots) layers_.push_back(make_layer(slots));
}

ExpertStore::Layer ExpertStore::make_layer(const std::vector<ExpertSlot>& slots) const {
  const PackedShape gate_up = gate_up_shape(config_), down = down_shape(config_);
  const auto is_elsewhere = [](const ExpertSlot& slot) { return slot.tier != ExpertTier::kHost; };
  size_t num_bytes = 0;
  for (const ExpertSlot& slot : slots) {
    if (!is_elsewhere(slot)) num_bytes += aligned_bytes(slot.format, gate_up) + aligned_bytes(slot.format, down);
  }

  const bool is_shared = config_.memory == ExpertMemory::kPerLayer;
  std::shared_ptr<std::byte> piece = is_shared ? allocate(num_bytes, Device::host()) : nullptr;
  std::byte* next = piece.get();
  const auto take = [&](const WeightFormat& format, const PackedShape& shape) {
    std::byte* memory = std::exchange(next, next + aligned_bytes(format, shape));
    return with_activations(borrow_packed(format, shape, memory));
  };
  Layer layer;
  for (const ExpertSlot& slot : slots) {
    if (!is_shared && !is_elsewhere(slot)) {
      piece = allocate(aligned_bytes(slot.format, gate_up) + aligned_bytes(slot.format, down), Device::host());
      next = piece.get();
    }
    layer.memory.push_back(is_elsewhere(slot) ? nullptr : piece);
    layer.gate_up.push_back(is_elsewhere(slot) ? PackedMatrix() : take(slot.format, gate_up));
    layer.down.push_back(is_elsewhere(slot) ? PackedMatrix() : take(slot.format, down));
  }
  return layer;
}

PackedMatrix ExpertStore::with_activations(PackedMatrix matrix) const {
  if (matrix.format.kind == WeightKind::kBF16) matrix.activations = config_.bf16_activations;
  if (matrix.format.kind == WeightKind::kF32) matrix.activations = ActivationFormat::kF32;
  return matrix;
}

int ExpertStore::num_local_experts(int layer) const { return static_cast<int>(slots(layer).size()); }

size_t ExpertStore::num_bytes() const { return mapped_bytes() + bytes_of_tier(config_, ExpertTier::kHost); }

size_t ExpertStore::mapped_bytes() const { return bytes_of_tier(config_, ExpertTier::kMapped); }

size_t ExpertStore::disk_bytes() const { return bytes_of_tier(config_, ExpertTier::kDisk); }

std::span<const ExpertSlot> ExpertStore::slots(int layer) const {
  layer_at(layer);
  return config_.slots[static_cast<size_t>(layer)];
}

ExpertHandle ExpertStore::handle(const ExpertId& id) const {
  const std::span<const ExpertSlot> local = slots(id.layer);
  const auto found = std::ranges::find(local, id.expert, &ExpertSlot::expert);
  CHECK(found != local.end()) << "expert " << id.expert << " of MoE layer " << id.layer << " is not on this rank";
  return {.slot = static_cast<int32_t>(found - local.begin()), .format = found->format, .tier = found->tier};
}

ExpertMatrices ExpertStore::matrices(int layer, int slot) {
  CHECK(!frozen_) << "expert weights are immutable after loading";
  const Layer& home = layer_at(layer);
  const ExpertMatrices result{home.gate_up.at(static_cast<size_t>(slot)), home.down.at(static_cast<size_t>(slot))};
  CHECK(result.down.defined()) << "expert in slot " << slot << " of MoE layer " << layer << " rests in the mapping or on disk";
  return result;
}

void ExpertStore::place(int layer, int slot, const ExpertMatrices& matrices) {
  CHECK(!frozen_) << "expert weights are immutable after loading";
  const ExpertSlot& target = slots(layer)[static_cast<size_t>(slot)];
  CHECK(target.tier == ExpertTier::kMapped && matrices.down.format == target.format)
      << "expert " << target.expert << " of MoE layer " << layer << " has memory of its own, or another format";
  Layer& home = layers_[static_cast<size_t>(layer)];
  home.gate_up[static_cast<size_t>(slot)] = with_activations(matrices.gate_up);
  home.down[static_cast<size_t>(slot)] = with_activations(matrices.down);
}

void ExpertStore::freeze() {
  for (int layer = 0; layer < num_layers(); ++layer) {
    for (size_t slot = 0; slot < slots(layer).size(); ++slot) {
      const bool is_on_disk = slots(layer)[slot].tier == ExpertTier::kDisk;
      CHECK(is_on_disk || layer_at(layer).down[slot].defined()) << "an expert of the mapping was given no place";
    }
  }
  frozen_ = true;
}

std::span<const PackedMatrix> ExpertStore::gate_up(int layer) const {
  CHECK(frozen_) << "expert weights are used before they are loaded";
  return layer_at(layer).gate_up;
}

std::span<const PackedMatrix> ExpertStore::down(int layer) const {
  CHECK(frozen_) << "expert weights are used before they are loaded";
  return layer_at(layer).down;
}

void ExpertStore::exchange_layer(int layer, ExpertStore& other) {
  CHECK(frozen_ && other.frozen_) << "experts are exchanged before they are loaded";
  CHECK(layer >= 0 && layer < num_layers() && layer < other.num_layers()) << "MoE layer " << layer << " of " << num_layers();
  const auto l = static_cast<size_t>(layer);
  std::vector<ExpertSlot>& mine = config_.slots[l];
  std::vector<ExpertSlot>& theirs = other.config_.slots[l];
  size_t here = 0;
  for (size_t there = 0; there < theirs.size(); ++there, ++here) {
    while (here < mine.size() && mine[here].expert != theirs[there].expert) ++here;
    CHECK(here < mine.size()) << "MoE layer " << layer << " has no expert " << theirs[there].expert << ", or not in this order";
    std::swap(mine[here], theirs[there]);
    std::swap(layers_[l].memory[here], other.layers_[l].memory[there]);
    std::swap(layers_[l].gate_up[here], other.layers_[l].gate_up[there]);
    std::swap(layers_[l].down[here], other.layers_[l].down[there]);
  }
}

void ExpertStore::release(int layer, std::span<const int32_t> kept_slots) {
  CHECK(frozen_) << "expert weights are released before they are loaded";
  const Layer& whole = layer_at(layer);
  std::vector<ExpertSlot> kept(whole.down.size(), {.expert = -1, .format = {}, .tier = ExpertTier::kMapped});  // no memory
  for (const int32_t slot : kept_slots) kept.at(static_cast<size_t>(slot)) = slots(layer)[static_cast<size_t>(slot)];
  Layer rest;
  if (!kept_slots.empty()) rest = make_layer(kept);
  for (const int32_t slot : kept_slots) {
    const auto s = static_cast<size_t>(slot);
    move_to(whole.gate_up[s], rest.gate_up[s]);
    move_to(whole.down[s], rest.down[s]);
  }
  layers_[static_cast<size_t>(layer)] = std::move(rest);
}

const ExpertStore::Layer& ExpertStore::layer_at(int layer) const {
  CHECK(layer >= 0 && layer < num_layers()) << "MoE layer " << layer << " of " << num_layers();
  return layers_[static_cast<size_t>(layer)];
}

}  // namespace skipper
