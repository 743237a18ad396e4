// The thresholds of all levels in GPU memory, as the routing kernel reads them.
#pragma once

#include <cstdint>

#include "cluster/operating_point.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// A token carries its level in one byte.
inline constexpr int64_t kMaxDeviceLevels = 256;

// Throws InvalidRequest naming level and key: rules that look at the whole batch (rank_capacity, decode_base_k,
// decode_rank_experts), protect_attention, the pair rule "similar" and identity_bypass run on the CPU only.
void require_rules_of_gpu(const LevelTable& levels);

struct SkipTableShape {
  int num_moe_layers = 0;
  int64_t num_experts = 0;
};

// Memory stays where it is when levels change, so that CUDA graphs need not be captured again. Engine thread only.
class DeviceSkipTable {
 public:
  // Levels that skip nothing until the first upload().
  DeviceSkipTable(const SkipTableShape& shape, Device device);

  // In stream order, and nothing when `levels` has the version that is already there. Throws as require_rules_of_gpu(), and
  // leaves the old levels then.
  void upload(const LevelTable& levels, Stream& stream);

  // [kMaxDeviceLevels · 3 · 2, sizeof(SkipRow)] u8: RouteInput::skip_rows of one layer.
  Tensor skip_rows(int moe_layer) const { return skip_rows_.at(moe_layer); }
  // [kMaxDeviceLevels, E] f32, 1 where a level has none.
  Tensor expert_scale(int moe_layer) const { return expert_scale_.at(moe_layer); }

 private:
  void copy_to_gpu(Stream& stream);

  SkipTableShape shape_;
  Tensor skip_rows_;     // of all layers
  Tensor expert_scale_;
  Tensor host_skip_rows_;
  Tensor host_expert_scale_;
  bool is_uploaded_ = false;
  uint32_t version_ = 0;
};

}  // namespace skipper::cuda
