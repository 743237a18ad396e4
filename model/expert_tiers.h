// Where the experts of a rank with a GPU rest and what computes them, fixed when the model is loaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "experts/expert_store.h"

namespace skipper {

enum class GpuExpertTier : uint8_t {
  kDevice,        // in GPU memory
  kHostStreamed,  // in page-locked host memory, from which the GPU reads; the bits of kDevice
  kHostComputed,  // in host memory, computed by the CPU; integer formats and orders of sums differ in low bits
};

// "device", "stream", "compute".
std::string_view name_of(GpuExpertTier tier);
// Of experts that rest on the host: throws InvalidFile naming `where` and a text that is neither "stream" nor "compute".
GpuExpertTier parse_host_expert_tier(const std::string& text, const std::string& where);

struct ExpertTiers {
  // tiers[l][s] of the expert in slot s of MoE layer l; empty: kDevice all over.
  std::vector<std::vector<GpuExpertTier>> tiers;
  // Prompts have a layer's streamed experts copied to GPU memory ahead of use; that memory holds two layers' of them.
  bool are_staged = false;

  GpuExpertTier at(int layer, int slot) const {
    return tiers.empty() ? GpuExpertTier::kDevice : tiers[static_cast<size_t>(layer)][static_cast<size_t>(slot)];
  }
  bool operator==(const ExpertTiers&) const = default;
};

struct ExpertTierConfig {
  // GPU memory for experts, that of staging included; without it all experts rest there.
  std::optional<size_t> device_bytes = std::nullopt;
  GpuExpertTier others = GpuExpertTier::kHostStreamed;  // of those that find no room there
};

// Bytes of each expert in GPU memory: [MoE layer][slot]. Throws InvalidRequest naming a format that GPUs do not multiply with.
std::vector<std::vector<size_t>> gpu_expert_bytes(const ExpertStore& store);

// The same share of each layer on the device, in slot order: who is used most is not known here. Where the memory holds the
// staging of two layers besides, prompts are staged; it is worth more than the same bytes of experts, as a prompt meets them all.
ExpertTiers choose_expert_tiers(const std::vector<std::vector<size_t>>& expert_bytes, const ExpertTierConfig& config);

// What experts take of the GPU's memory, and of the host's.
struct ExpertTierBytes {
  size_t device = 0;
  size_t staging = 0;
  size_t streamed = 0;
  size_t computed = 0;  // as if they were packed for the GPU
};
ExpertTierBytes bytes_of(const ExpertTiers& tiers, const std::vector<std::vector<size_t>>& expert_bytes);

}  // namespace skipper
