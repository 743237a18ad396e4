// Host-memory home of the experts that this rank owns.
#pragma once

#include <cstdint>
#include <vector>

#include "experts/expert_id.h"
#include "tensor/tensor.h"

namespace skipper {

enum class ExpertFormat : uint8_t { kBF16 };

// Where an expert's weights rest.
enum class ExpertTier : uint8_t { kHost };

// How the rest of the code reaches an expert: never by pointer, so that it may rest in another format or place.
struct ExpertHandle {
  int32_t slot = 0;  // index among this rank's experts of the layer, row of the arenas
  ExpertFormat format = ExpertFormat::kBF16;
  ExpertTier tier = ExpertTier::kHost;
};

struct ExpertStoreConfig {
  int64_t hidden_size = 0;        // H
  int64_t intermediate_size = 0;  // I
  // experts[l] = the experts of MoE layer l that this rank owns, in slot order; a layer may have none.
  std::vector<std::vector<int32_t>> experts;
};

// One arena per layer and projection, so that a grouped matrix product runs over all experts of a layer at once.
// Filled by the loader, then frozen: immutable and thread-safe from there on.
class ExpertStore {
 public:
  // Allocates the arenas; their bytes are uninitialised. Throws DeviceError when there is no memory.
  explicit ExpertStore(const ExpertStoreConfig& config);

  int num_layers() const { return static_cast<int>(layers_.size()); }
  int num_local_experts(int layer) const;
  int64_t hidden_size() const { return config_.hidden_size; }
  int64_t intermediate_size() const { return config_.intermediate_size; }
  // Bytes of all arenas.
  size_t num_bytes() const;

  // The handle of an expert that this rank owns.
  ExpertHandle handle(const ExpertId& id) const;

  // Writable views of one expert, for the loader; refused after freeze().
  Tensor gate_up(int layer, int slot);  // [2·I, H] bf16, gate rows first, then up
  Tensor down(int layer, int slot);     // [H, I] bf16

  // Ends loading.
  void freeze() { frozen_ = true; }

  // All experts of one layer in slot order; only after freeze().
  const Tensor& gate_up_arena(int layer) const;  // [num_local, 2·I, H] bf16
  const Tensor& down_arena(int layer) const;     // [num_local, H, I] bf16

 private:
  struct Layer {
    Tensor gate_up;
    Tensor down;
  };
  const Layer& layer_at(int layer) const;

  ExpertStoreConfig config_;
  std::vector<Layer> layers_;
  bool frozen_ = false;
};

}  // namespace skipper
