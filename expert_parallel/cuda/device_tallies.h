// What the MoE layers of a GPU counted, kept there and fetched once per step.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "expert_parallel/pair_counters.h"
#include "expert_parallel/traffic_counters.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper::cuda {

// Sums since start, in GPU memory; only the layers' kernels add to them.
//
//   model.forward(...);            // any number of layers, graphs included
//   tallies.queue_fetch(stream);
//   stream.synchronize();
//   tallies.add_news(pairs, traffic);
//
// Engine thread only.
class DeviceTallies {
 public:
  DeviceTallies(int num_moe_layers, Device device);

  // [2 phases, 3 classes, 2 outcomes] i64 of one layer: RouteOutput::pair_counts.
  Tensor pair_counts(int moe_layer) const { return pair_counts_.at(moe_layer); }
  // [kNumTrafficTallies] i64, see traffic_tally.h.
  const Tensor& traffic() const { return traffic_; }

  // Copies all sums to the host, in stream order. Can be captured.
  void queue_fetch(Stream& stream);

  // Bytes of one hidden row of each direction.
  struct RowBytes {
    int64_t dispatch = 0;
    int64_t combine = 0;
  };
  // Adds what was counted since the last call, as of the last fetch, which must be complete.
  void add_news(const RowBytes& row_bytes, PairCounters& pairs, TrafficCounters& traffic);

 private:
  Tensor pair_counts_;  // [L, 2, 3, 2] i64
  Tensor traffic_;
  Tensor fetched_pair_counts_;  // pinned
  Tensor fetched_traffic_;      // pinned
  Tensor known_pair_counts_;    // as of the last add_news
  Tensor known_traffic_;
};

}  // namespace skipper::cuda
