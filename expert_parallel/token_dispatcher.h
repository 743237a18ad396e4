// Takes tokens to the ranks of their experts and brings the weighted sums back.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cluster/cluster_topology.h"
#include "comm/communicator.h"
#include "expert_parallel/dispatch_buffers.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"
#include "expert_parallel/traffic_counters.h"
#include "experts/expert_ffn.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// One micro-batch of T tokens, 0 <= T <= max_tokens.
struct DispatchInput {
  int layer = 0;              // index among all decoder layers, for messages
  int moe_layer = 0;          // index among the MoE layers, for the placement
  const Tensor& hidden;       // [T, H] f32
  const Routing& routing;     // [T, top_k], after skipping
  const Tensor& routed_ids;   // [T, top_k] i32, expert ids before skipping; only for the count of saved bytes
  const TokenPolicies& policies;  // [T]; what is sent is added to its usage
};

// A dispatch under way; goes from call to call of the TokenDispatcher, in this order, each once.
class DispatchHandle {
 public:
  int64_t num_tokens() const { return num_tokens_; }

 private:
  friend class TokenDispatcher;
  enum class Phase : uint8_t { kDispatching, kComputing, kCombining, kDone };

  explicit DispatchHandle(DispatchBuffers& buffers) : buffers_(&buffers) {}
  void advance(Phase from, Phase to);

  DispatchBuffers* buffers_;
  Phase phase_ = Phase::kDispatching;
  int layer_ = 0;
  int moe_layer_ = 0;
  int64_t num_tokens_ = 0;    // T
  int64_t num_sent_ = 0;      // hidden rows sent, the local group included
  int64_t num_received_ = 0;  // hidden rows received
  int64_t num_pairs_ = 0;     // pairs of the received rows
  std::unique_ptr<PendingOperation> pending_;
};

// A token's hidden row goes once to each rank that owns one of its experts, with its list of (local expert, weight); that rank
// returns one weighted partial sum, and the source adds the partial sums in rank order. The rank's own tokens stay in its
// buffers but are rounded and added like the others, so a token's result does not depend on which rank holds it.
// (With SumPlace::kSource a row travels for each expert instead, and a token's result does not depend on how many ranks there
// are either.)
//
//   DispatchHandle handle = dispatcher.start_dispatch(input, buffers, stream);
//   ExpertBatch batch = dispatcher.finish_dispatch(handle, stream);
//   experts.forward(layer, batch, scratch, expert_output, stream);
//   dispatcher.start_combine(handle, expert_output, stream);
//   dispatcher.finish_combine(handle, out, stream);
//
// All ranks make these calls together, also with T = 0. Engine thread only.
class TokenDispatcher {
 public:
  struct Context {
    Communicator& data;
    const ClusterTopology& topology;
    const ExpertPlacement& placement;
    TrafficCounters& counters;
  };
  // All references outlive this object.
  explicit TokenDispatcher(const Context& context);

  // The step that the next calls belong to, for messages.
  void set_step(int64_t step) { step_ = step; }

  // Exchanges counts, packs one message per destination and sets them under way. The input's tensors are not needed after it
  // returns; `buffers` belong to the handle until finish_combine. Throws CommError when a rank announces more than fits.
  DispatchHandle start_dispatch(const DispatchInput& input, DispatchBuffers& buffers, Stream& stream);
  // The received rows sorted by local expert, views of the handle's buffers. Throws CommError on a message that contradicts
  // its counts or names an expert that is not here.
  ExpertBatch finish_dispatch(DispatchHandle& handle, Stream& stream);

  // expert_output [R, H] f32, row by row the result for ExpertBatch's rows. Not needed after it returns.
  void start_combine(DispatchHandle& handle, const Tensor& expert_output, Stream& stream);
  // out [T, H] f32 is overwritten; a token without experts gets exactly 0.
  void finish_combine(DispatchHandle& handle, Tensor& out, Stream& stream);

 private:
  void sum_pairs(const DispatchHandle& handle, const Tensor& expert_output, Stream& stream);
  // These are null where there is nobody to exchange with.
  std::unique_ptr<PendingOperation> start_counts(DispatchBuffers& buffers, Stream& stream);
  std::unique_ptr<PendingOperation> start_payload(DispatchBuffers& buffers, Stream& stream);
  // Parts of `send` and `receive` have the sizes of buffers.send_bytes and receive_bytes.
  std::unique_ptr<PendingOperation> start_exchange(const Tensor& send, Tensor& receive, const DispatchBuffers& buffers,
                                                   Stream& stream);
  void check_received_counts(const DispatchBuffers& buffers) const;
  void count_dispatch(const DispatchBuffers& buffers);
  void count_combine(const DispatchBuffers& buffers);
  void enter(const DispatchHandle& handle, const char* phase);
  bool is_alone() const { return context_.data.size() == 1; }
  Hop hop_to(int rank) const { return context_.topology.hop(context_.data.rank(), rank); }

  Context context_;
  std::vector<int64_t> counts_bytes_;  // size of the counts message to each rank
  int64_t step_ = -1;
};

}  // namespace skipper
