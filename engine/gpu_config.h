// How a rank uses its GPU.
#pragma once

#include <cstdint>

#include "model/expert_tiers.h"

namespace skipper {

struct GpuConfig {
  bool cuda_graphs = true;      // decode steps as graphs; the same bits without, slower: for debugging
  bool node_relay = true;       // rows of prompts cross the network once per node, where ranks form a grid; the same bits without
  int64_t reserved_mb = 1024;   // of GPU memory that a KV cache sized by it leaves alone
  int64_t device_expert_mb = -1;  // of GPU memory for experts; −1: all experts rest there
  // What becomes of the others: streamed to the GPU as it needs them, or computed by the CPU.
  GpuExpertTier host_experts = GpuExpertTier::kHostStreamed;

  // Throws InvalidFile naming the key ("gpu.reserved_mb") whose value cannot work.
  void validate() const;
};

}  // namespace skipper
