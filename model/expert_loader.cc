// The experts' half of weight_loader.h: one function per checkpoint layout.
#include "experts/gate_up_panels.h"
#include "kernels/elementwise.h"
#include "model/checkpoint_reader.h"
#include "model/quantized_checkpoint.h"
#include "model/weight_loader.h"

namespace skipper {
namespace {

// One expert on its way from the checkpoint to the store.
struct ExpertLoad {
  CheckpointReader& reader;
  const MoeConfig& moe;
  int64_t hidden_size;
  std::string prefix;  // of the layer: "model.layers.3.mlp.experts."
  ExpertSlot slot;
};

void pack_separate(const ExpertLoad& load, const ExpertMatrices& matrices) {
  const int64_t width = load.moe.intermediate_size;
  const std::string prefix = load.prefix + std::to_string(load.slot.expert) + ".";
  const Tensor gate = load.reader.view(prefix + "gate_proj.weight", {width, load.hidden_size});
  const Tensor up = load.reader.view(prefix + "up_proj.weight", {width, load.hidden_size});
  const Tensor down = load.reader.view(prefix + "down_proj.weight", {load.hidden_size, width});
  const auto pack = [&checkpoint = load.reader.checkpoint(), prefix, gate, up, down, target = matrices]() mutable {
    const WeightFormat& format = target.down.format;
    pack_gate_up(packable(prefix + "gate_proj.weight", gate, format), packable(prefix + "up_proj.weight", up, format),
                 target.gate_up);
    pack_into(packable(prefix + "down_proj.weight", down, format), target.down);
    for (const Tensor& read : {gate, up, down}) checkpoint.release_pages(read);
  };
  load.reader.queue().add(gate.num_bytes() + up.num_bytes() + down.num_bytes(), pack);
}

// x [A, B] → [B, A], f16 as f32.
Tensor turned(const Tensor& x) {
  const Tensor source = x.dtype() == DType::kF16 ? as_f32(x) : x;
  Tensor result = Tensor::empty({x.dim(1), x.dim(0)}, source.dtype());
  cpu::transpose(source, result);
  return result;
}

// All experts of a layer in one tensor, inputs before outputs.
void pack_fused_transposed(const ExpertLoad& load, const ExpertMatrices& matrices) {
  const int64_t width = load.moe.intermediate_size;
  const int64_t num_experts = load.moe.num_experts;
  const std::string name = load.prefix + "gate_up_proj";
  const std::string down_name = load.prefix + "down_proj";
  const Tensor gate_up = load.reader.view(name, {num_experts, load.hidden_size, 2 * width}).at(load.slot.expert);
  const Tensor down = load.reader.view(down_name, {num_experts, width, load.hidden_size}).at(load.slot.expert);
  const auto pack = [&checkpoint = load.reader.checkpoint(), name, down_name, gate_up, down, width,
                     target = matrices]() mutable {
    const WeightFormat& format = target.down.format;
    const Tensor rows = packable(name, turned(gate_up), format);
    pack_gate_up(rows.slice(0, width), rows.slice(width, 2 * width), target.gate_up);
    pack_into(packable(down_name, turned(down), format), target.down);
    for (const Tensor& read : {gate_up, down}) checkpoint.release_pages(read);
  };
  load.reader.queue().add(gate_up.num_bytes() + down.num_bytes(), pack);
}

// The bytes as `skipper quantize` wrote them, in place.
ExpertMatrices stored_matrices(const ExpertLoad& load) {
  const int64_t width = load.moe.intermediate_size;
  const std::string prefix = load.prefix + std::to_string(load.slot.expert) + ".";
  const Checkpoint& checkpoint = load.reader.checkpoint();
  const PackedShape gate_up_shape = joined_shape({width, load.hidden_size});
  return {read_packed(checkpoint, prefix + "gate_up", load.slot.format, gate_up_shape),
          read_packed(checkpoint, prefix + "down", load.slot.format, {load.hidden_size, width})};
}

ExpertMatrices map_quantized(const ExpertLoad& load) {
  const ExpertMatrices stored = stored_matrices(load);
  read_in_later(load.reader.checkpoint(), stored.gate_up, load.reader.queue());
  read_in_later(load.reader.checkpoint(), stored.down, load.reader.queue());
  return stored;
}

void copy_quantized(const ExpertLoad& load, const ExpertMatrices& target) {
  const ExpertMatrices stored = stored_matrices(load);
  copy_later(stored.gate_up, target.gate_up, load.reader.queue());
  copy_later(stored.down, target.down, load.reader.queue());
}

void fill_later(const ExpertLoad& load, const ModelConfig& config, const ExpertMatrices& target) {
  if (config.quantization) return copy_quantized(load, target);
  switch (load.moe.layout) {
    case ExpertLayout::kPerExpert:
      return pack_separate(load, target);
    case ExpertLayout::kFusedTransposed:
      return pack_fused_transposed(load, target);
  }
}

}  // namespace

void load_experts(const WeightSource& source, ExpertStore& store, LoadQueue& queue) {
  const ModelConfig& config = source.config;
  CheckpointReader reader(source.checkpoint, queue);
  int moe_layer = 0;
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
    if (!config.is_moe_layer(layer)) continue;
    const std::string prefix = config.text_prefix + "layers." + std::to_string(layer) + ".mlp.experts.";
    int slot_index = 0;
    for (const ExpertSlot& slot : store.slots(moe_layer)) {
      const ExpertLoad load{reader, config.moe, config.hidden_size, prefix, slot};
      if (slot.tier == ExpertTier::kMapped) store.place(moe_layer, slot_index, map_quantized(load));
      if (slot.tier == ExpertTier::kHost) fill_later(load, config, store.matrices(moe_layer, slot_index));
      ++slot_index;
    }
    ++moe_layer;
  }
}

}  // namespace skipper
