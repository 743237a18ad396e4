// How a rank uses its GPU.
#pragma once

#include <cstdint>

namespace skipper {

struct GpuConfig {
  bool cuda_graphs = true;      // decode steps as graphs; the same bits without, slower: for debugging
  int64_t reserved_mb = 1024;   // of GPU memory that a KV cache sized by it leaves alone
  // GPU memory for experts; the others rest in page-locked host memory, from which the GPU reads them. −1: all on the GPU.
  int64_t device_expert_mb = -1;

  // Throws InvalidFile naming the key ("gpu.reserved_mb") whose value cannot work.
  void validate() const;
};

}  // namespace skipper
