// What the MoE layers of a GPU counted, kept there and fetched once per step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "expert_parallel/pair_counters.h"
#include "expert_parallel/traffic_counters.h"
#include "tensor/cuda/pinned_tensor.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// Sums since start, in GPU memory; only the layers' kernels add to them.
//
//   model.forward(...);            // any number of layers, graphs included
//   tallies.queue_fetch(stream);
//   stream.synchronize();
//   tallies.add_news(row_bytes, pairs, traffic);
//
// Engine thread only.
class DeviceTallies {
 public:
  // Without experts their loads are not counted.
  DeviceTallies(int num_moe_layers, Device device, int64_t num_experts = 0);

  // [2 phases, 3 classes, 2 outcomes] i64 of one layer: RouteOutput::pair_counts.
  Tensor pair_counts(int moe_layer) const { return pair_counts_.at(moe_layer); }
  // [3 classes, experts] i64 of one layer: RouteOutput::expert_loads. Undefined without experts.
  Tensor expert_loads(int moe_layer) const;
  // [kNumTrafficTallies] i64: traffic_tally.h. Nothing is sent, and so nothing counted, in a world of one.
  const Tensor& traffic() const { return traffic_; }

  // Copies all sums to the host, in stream order. Can be captured.
  void queue_fetch(Stream& stream);

  // Bytes of one hidden row of each direction.
  struct RowBytes {
    int64_t dispatch = 0;
    int64_t combine = 0;
  };
  // Adds what was counted since the last call, as of the last fetch, which must be complete. Unlike on the CPU, rows that come
  // back are counted where they went out, which knows their class.
  void add_news(const RowBytes& row_bytes, PairCounters& pairs, TrafficCounters& traffic);

  // For a step that runs once more: what was counted since the last call is forgotten, but for the bytes on the wire.
  void discard_news(TrafficCounters& traffic);
  // Expert loads of now, and back to them, in stream order.
  void keep_expert_loads(Stream& stream);
  void restore_expert_loads(Stream& stream);

  // The pairs that ran since start: [MoE layers, classes, experts]. Apart from the rest, which is less and wanted more often.
  // Waits.
  std::vector<int64_t> fetch_expert_loads(Stream& stream) const;

 private:
  void add_pairs(PairCounters& pairs, TrafficCounters& traffic);
  void add_traffic(const RowBytes& row_bytes, TrafficCounters& traffic);

  Tensor pair_counts_;   // [L, 2, 3, 2] i64
  Tensor expert_loads_;  // [L, 3, E] i64
  Tensor kept_expert_loads_;  // as expert_loads_, once they were kept
  Tensor traffic_;
  PinnedTensor fetched_pair_counts_;
  PinnedTensor fetched_traffic_;
  std::vector<int64_t> known_pair_counts_;  // as of the last add_news()
  std::vector<int64_t> known_traffic_;
};

}  // namespace skipper::cuda
