#include "model/expert_tiers.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "base/error.h"
#include "kernels/cuda/device_matrix.h"

namespace skipper {
namespace {

using ExpertBytes = std::vector<std::vector<size_t>>;

constexpr size_t kStagedLayers = 2;  // one is read while the next is copied

size_t sum_of(const std::vector<size_t>& values) { return std::accumulate(values.begin(), values.end(), size_t{0}); }

struct LayerSums {
  size_t all = 0;
  size_t largest_layer = 0;
  size_t largest_expert = 0;
};

LayerSums sums_of(const ExpertBytes& expert_bytes) {
  LayerSums sums;
  for (const std::vector<size_t>& layer : expert_bytes) {
    const size_t bytes = sum_of(layer);
    sums.all += bytes;
    sums.largest_layer = std::max(sums.largest_layer, bytes);
    for (const size_t expert : layer) sums.largest_expert = std::max(sums.largest_expert, expert);
  }
  return sums;
}

// The share f of the experts on the device for which these and two layers' staging, 2 · (1 − f) layers, take all of the memory.
// Negative where even the staging alone would take more. Slots are whole experts: one of each staged layer is allowed for.
double share_beside_staging(const LayerSums& sums, double device_bytes) {
  const double staged = static_cast<double>(kStagedLayers * sums.largest_layer);
  const double rounding = static_cast<double>(kStagedLayers * sums.largest_expert);
  const double gained = static_cast<double>(sums.all) - staged;  // by a share of 1
  return gained <= 0.0 ? -1.0 : (device_bytes - staged - rounding) / gained;
}

std::vector<GpuExpertTier> tiers_of_layer(const std::vector<size_t>& layer, double share, GpuExpertTier others) {
  const double room = share * static_cast<double>(sum_of(layer));
  std::vector<GpuExpertTier> tiers(layer.size(), others);
  size_t used = 0;
  for (size_t slot = 0; slot < layer.size(); ++slot) {
    if (static_cast<double>(used + layer[slot]) > room) break;
    used += layer[slot];
    tiers[slot] = GpuExpertTier::kDevice;
  }
  return tiers;
}

}  // namespace

std::string_view name_of(GpuExpertTier tier) {
  if (tier == GpuExpertTier::kDevice) return "device";
  return tier == GpuExpertTier::kHostStreamed ? "stream" : "compute";
}

GpuExpertTier parse_host_expert_tier(const std::string& text, const std::string& where) {
  for (const GpuExpertTier tier : {GpuExpertTier::kHostStreamed, GpuExpertTier::kHostComputed}) {
    if (text == name_of(tier)) return tier;
  }
  throw InvalidFile(where + ": '" + text + "' is no way to use experts in host memory; use stream or compute");
}

std::vector<std::vector<size_t>> gpu_expert_bytes(const ExpertStore& store) {
  const cuda::MatrixShape gate_up{2 * store.intermediate_size(), store.hidden_size()};
  const cuda::MatrixShape down{store.hidden_size(), store.intermediate_size()};
  ExpertBytes bytes(static_cast<size_t>(store.num_layers()));
  for (int layer = 0; layer < store.num_layers(); ++layer) {
    for (const ExpertSlot& slot : store.slots(layer)) {
      // Weights in f32 are multiplied as BF16.
      const WeightFormat format = slot.format.kind == WeightKind::kF32 ? WeightFormat{} : slot.format;
      bytes[static_cast<size_t>(layer)].push_back(cuda::device_matrix_bytes(format, gate_up) +
                                                  cuda::device_matrix_bytes(format, down));
    }
  }
  return bytes;
}

ExpertTiers choose_expert_tiers(const ExpertBytes& expert_bytes, const ExpertTierConfig& config) {
  const LayerSums sums = sums_of(expert_bytes);
  if (!config.device_bytes || *config.device_bytes >= sums.all) return {};
  const auto device_bytes = static_cast<double>(*config.device_bytes);
  const double staged_share = config.others == GpuExpertTier::kHostStreamed ? share_beside_staging(sums, device_bytes) : -1.0;
  ExpertTiers result{.tiers = {}, .are_staged = staged_share >= 0.0};
  const double share = result.are_staged ? staged_share : device_bytes / static_cast<double>(sums.all);
  for (const std::vector<size_t>& layer : expert_bytes) result.tiers.push_back(tiers_of_layer(layer, share, config.others));
  return result;
}

ExpertTierBytes bytes_of(const ExpertTiers& tiers, const ExpertBytes& expert_bytes) {
  ExpertTierBytes result;
  size_t most_streamed = 0;
  for (size_t layer = 0; layer < expert_bytes.size(); ++layer) {
    std::array<size_t, 3> sums{};  // by tier
    for (size_t slot = 0; slot < expert_bytes[layer].size(); ++slot) {
      const GpuExpertTier tier = tiers.at(static_cast<int>(layer), static_cast<int>(slot));
      sums[static_cast<size_t>(tier)] += expert_bytes[layer][slot];
    }
    result.device += sums[static_cast<size_t>(GpuExpertTier::kDevice)];
    result.streamed += sums[static_cast<size_t>(GpuExpertTier::kHostStreamed)];
    result.computed += sums[static_cast<size_t>(GpuExpertTier::kHostComputed)];
    most_streamed = std::max(most_streamed, sums[static_cast<size_t>(GpuExpertTier::kHostStreamed)]);
  }
  if (tiers.are_staged) result.staging = kStagedLayers * most_streamed;
  return result;
}

}  // namespace skipper
