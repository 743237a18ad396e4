// Home of the experts that this rank owns, each in its own weight format: memory of the store, or the checkpoint's mapping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "experts/expert_id.h"
#include "kernels/packed_matrix.h"

namespace skipper {

// Where an expert's weights rest: in memory of the store; in place in the checkpoint's mapping, whose pages all ranks of a
// machine share; or in a file, from which an ExpertResidence reads them when they are needed.
enum class ExpertTier : uint8_t { kHost, kMapped, kDisk };

// How the rest of the code reaches an expert: never by pointer, so that it may rest in another format or place.
struct ExpertHandle {
  int32_t slot = 0;  // index among this rank's experts of the layer
  WeightFormat format;
  ExpertTier tier = ExpertTier::kHost;
};

// One expert of this rank.
struct ExpertSlot {
  int32_t expert = 0;  // as the router counts
  WeightFormat format;
  ExpertTier tier = ExpertTier::kHost;
};

// How a store takes its memory: one piece for the experts of a layer, whose large pages are quick to read, or one for each
// expert, which can be freed without the others.
enum class ExpertMemory : uint8_t { kPerLayer, kPerExpert };

struct ExpertStoreConfig {
  int64_t hidden_size = 0;        // H
  int64_t intermediate_size = 0;  // I
  // slots[l] = the experts of MoE layer l that this rank owns, in slot order; a layer may have none.
  std::vector<std::vector<ExpertSlot>> slots;
  // What rows become before they meet BF16 weights: kBF16 or kF32. Other formats have only one choice.
  ActivationFormat bf16_activations = ActivationFormat::kBF16;
  ExpertMemory memory = ExpertMemory::kPerLayer;
};

// The experts of all layers in one format, in memory of the store.
std::vector<std::vector<ExpertSlot>> slots_of(const std::vector<std::vector<int32_t>>& experts, const WeightFormat& format);

// What an expert takes of a store's memory: its matrices, each on a multiple of 64 bytes.
size_t stored_expert_bytes(const WeightFormat& format, int64_t hidden_size, int64_t intermediate_size);

// The matrices of one expert: views of the store's memory or of the mapping.
struct ExpertMatrices {
  PackedMatrix gate_up;  // gate and up [I, H] with their panels in turn: see experts/gate_up_panels.h
  PackedMatrix down;     // [H, I]
};

// Memory for the experts of kHost. Filled by the loader, then frozen: immutable and thread-safe from
// there on, but for release().
class ExpertStore {
 public:
  // Allocates the memory; its bytes are uninitialised. Throws DeviceError when there is none.
  explicit ExpertStore(const ExpertStoreConfig& config);

  int num_layers() const { return static_cast<int>(layers_.size()); }
  int num_local_experts(int layer) const;
  int64_t hidden_size() const { return config_.hidden_size; }
  int64_t intermediate_size() const { return config_.intermediate_size; }
  ActivationFormat bf16_activations() const { return config_.bf16_activations; }
  // Bytes of all experts in memory, those of kMapped included; of those; and of experts on disk.
  size_t num_bytes() const;
  size_t mapped_bytes() const;
  size_t disk_bytes() const;

  // What the store was made for, in slot order.
  std::span<const ExpertSlot> slots(int layer) const;
  // The handle of an expert that this rank owns.
  ExpertHandle handle(const ExpertId& id) const;

  // Writable views of one expert of kHost, for the loader; refused after freeze(). Thread-safe for different slots.
  ExpertMatrices matrices(int layer, int slot);
  // Where an expert of kMapped lies, for the loader; the memory outlives the store. Refused after freeze().
  void place(int layer, int slot, const ExpertMatrices& matrices);

  // Ends loading; every expert of kMapped has its place.
  void freeze();

  // All experts of one layer in slot order, those of kDisk undefined; only after freeze().
  std::span<const PackedMatrix> gate_up(int layer) const;
  std::span<const PackedMatrix> down(int layer) const;

  // The experts that `other` has of a layer, in the order of the slots here, change places with the same experts here; those that
  // it has not stay. Both are frozen, and were made for the same layers and sizes. Formats may differ. Between forward passes.
  void exchange_layer(int layer, ExpertStore& other);

  // Frees the matrices of a layer that lie elsewhere by now, in GPU memory; what they were stays known. Those of the slots to be
  // kept stay, in memory of their own.
  void release(int layer, std::span<const int32_t> kept_slots = {});

 private:
  struct Layer {
    std::vector<std::shared_ptr<std::byte>> memory;  // of each slot: of one piece for all, or of its own
    std::vector<PackedMatrix> gate_up;
    std::vector<PackedMatrix> down;
  };
  Layer make_layer(const std::vector<ExpertSlot>& slots) const;
  PackedMatrix with_activations(PackedMatrix matrix) const;
  const Layer& layer_at(int layer) const;

  ExpertStoreConfig config_;
  std::vector<Layer> layers_;
  bool frozen_ = false;
};

}  // namespace skipper
