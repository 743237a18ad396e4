// Experts that rest on a disk: brought into memory for as long as their layer computes.
#pragma once

#include <cstdint>
#include <span>

#include "experts/expert_store.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// What one layer is about to compute.
struct LayerDemand {
  int layer = 0;                      // among the MoE layers
  std::span<const int32_t> on_disk;   // slots that have rows and rest on disk, ascending
  std::span<const int32_t> used;      // all slots that have rows, ascending
  const Tensor& tokens;               // [N, H] bf16 or f32: what arrived for the layer, which its router has seen
};

struct ResidentExpert {
  int32_t slot = 0;
  ExpertMatrices matrices;
};

// Engine thread only. Where an expert rests never changes a bit of what it computes.
class ExpertResidence {
 public:
  virtual ~ExpertResidence() = default;

  // Begins to read what the layer lacks, and then perhaps what the next one may. Every layer begins, also one that needs nothing.
  virtual void begin(const LayerDemand& demand, Stream& stream) = 0;
  // Blocks until at least one expert that was not given yet is in memory; gives all that are, ascending. Empty: all were given.
  // Throws InvalidFile when the disk fails.
  virtual std::span<const ResidentExpert> next() = 0;
  // What next() gave last may leave memory.
  virtual void release() = 0;
};

}  // namespace skipper
