// The experts' half of weight_loader.h: one function per checkpoint layout.
#include <cstring>

#include "kernels/elementwise.h"
#include "model/checkpoint_reader.h"
#include "model/weight_loader.h"

namespace skipper {
namespace {

void copy_into(const Tensor& source, Tensor destination) {
  std::memcpy(destination.bytes(), source.bytes(), source.num_bytes());
}

// One MoE layer on its way from the checkpoint to the store.
struct LayerLoad {
  CheckpointReader reader;
  const MoeConfig& moe;
  int64_t hidden_size;
  std::string prefix;  // "model.layers.3.mlp.experts."
  int moe_layer;
  const std::vector<int32_t>& experts;  // of this rank, in slot order
};

void load_per_expert(const LayerLoad& load, ExpertStore& store) {
  const int64_t width = load.moe.intermediate_size;
  for (size_t slot = 0; slot < load.experts.size(); ++slot) {
    const std::string prefix = load.prefix + std::to_string(load.experts[slot]) + ".";
    const Tensor gate = load.reader.transient(prefix + "gate_proj.weight", {width, load.hidden_size});
    const Tensor up = load.reader.transient(prefix + "up_proj.weight", {width, load.hidden_size});
    const Tensor down = load.reader.transient(prefix + "down_proj.weight", {load.hidden_size, width});
    const Tensor gate_up_slot = store.gate_up(load.moe_layer, static_cast<int>(slot));
    copy_into(as_bf16(gate), gate_up_slot.slice(0, width));
    copy_into(as_bf16(up), gate_up_slot.slice(width, 2 * width));
    copy_into(as_bf16(down), store.down(load.moe_layer, static_cast<int>(slot)));
  }
}

void load_fused_transposed(const LayerLoad& load, ExpertStore& store) {
  const int64_t width = load.moe.intermediate_size;
  const int64_t num_experts = load.moe.num_experts;
  const Tensor gate_up = load.reader.transient(load.prefix + "gate_up_proj", {num_experts, load.hidden_size, 2 * width});
  const Tensor down = load.reader.transient(load.prefix + "down_proj", {num_experts, width, load.hidden_size});
  for (size_t slot = 0; slot < load.experts.size(); ++slot) {
    Tensor gate_up_slot = store.gate_up(load.moe_layer, static_cast<int>(slot));
    Tensor down_slot = store.down(load.moe_layer, static_cast<int>(slot));
    cpu::transpose(as_bf16(gate_up.at(load.experts[slot])), gate_up_slot);
    cpu::transpose(as_bf16(down.at(load.experts[slot])), down_slot);
  }
}

void load_layer(const LayerLoad& load, ExpertStore& store) {
  switch (load.moe.layout) {
    case ExpertLayout::kPerExpert:
      return load_per_expert(load, store);
    case ExpertLayout::kFusedTransposed:
      return load_fused_transposed(load, store);
  }
}

// Also of experts that were not read: the kernel maps neighbours of a page that faults.
void release_expert_pages(const ExpertLoad& load, const std::string& prefix) {
  const MoeConfig& moe = load.config.moe;
  const int64_t hidden_size = load.config.hidden_size;
  if (moe.layout == ExpertLayout::kFusedTransposed) {
    load.checkpoint.release_pages(
        load.checkpoint.get(prefix + "gate_up_proj", {moe.num_experts, hidden_size, 2 * moe.intermediate_size}));
    load.checkpoint.release_pages(
        load.checkpoint.get(prefix + "down_proj", {moe.num_experts, moe.intermediate_size, hidden_size}));
    return;
  }
  for (int64_t expert = 0; expert < moe.num_experts; ++expert) {
    const std::string name = prefix + std::to_string(expert) + ".";
    for (const char* half : {"gate_proj.weight", "up_proj.weight"}) {
      load.checkpoint.release_pages(load.checkpoint.get(name + half, {moe.intermediate_size, hidden_size}));
    }
    load.checkpoint.release_pages(load.checkpoint.get(name + "down_proj.weight", {hidden_size, moe.intermediate_size}));
  }
}

}  // namespace

void load_experts(const ExpertLoad& load, ExpertStore& store) {
  std::vector<std::string> prefixes;
  for (int64_t layer = 0; layer < load.config.num_layers(); ++layer) {
    if (!load.config.is_moe_layer(layer)) continue;
    const auto moe_layer = static_cast<int>(prefixes.size());
    prefixes.push_back(load.config.text_prefix + "layers." + std::to_string(layer) + ".mlp.experts.");
    load_layer({CheckpointReader(load.checkpoint), load.config.moe, load.config.hidden_size, prefixes.back(), moe_layer,
                load.placement.experts_of(load.rank, moe_layer)},
               store);
    release_expert_pages(load, prefixes.back());
  }
  // Once more: reading a layer can map pages of the one before it.
  for (const std::string& prefix : prefixes) release_expert_pages(load, prefix);
  store.freeze();
}

}  // namespace skipper
