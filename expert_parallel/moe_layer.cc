#include "expert_parallel/moe_layer.h"

#include <glog/logging.h>

#include <algorithm>
#include <chrono>

namespace skipper {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

}  // namespace

MoeBuffers::MoeBuffers(const MoeBufferConfig& config, const ExpertPlacement& placement, const ExpertStore& store)
    : router(config.max_tokens, config.num_experts, config.top_k),
      skipping(config.max_tokens, config.top_k),
      dispatch({.max_tokens = config.max_tokens,
                .hidden_size = store.hidden_size(),
                .top_k = config.top_k,
                .world_size = placement.world_size(),
                .max_local_experts = placement.max_local_experts()},
               config.formats),
      experts(store, std::min(config.max_rows_per_pass, std::max<int64_t>(dispatch.row_index.num_elements(), 1))),
      expert_output(Tensor::empty({dispatch.row_index.num_elements(), store.hidden_size()}, DType::kF32)) {}

MoeLayer::MoeLayer(const MoeLayerConfig& config, const PackedMatrix& router_weight, const MoeContext& context)
    : config_(config),
      context_(context),
      router_(router_weight, {.top_k = config.top_k, .scoring = config.scoring, .normalization = config.normalization}),
      skipping_(context.skipping, {.layer = config.layer, .moe_layer = config.moe_layer}) {
  CHECK_EQ(router_weight.num_rows, config.num_experts);
  CHECK_EQ(router_weight.num_columns, config.hidden_size);
}

void MoeLayer::forward(const Tensor& hidden, const TokenPolicies& policies, MoeBuffers& buffers, Tensor& out,
                       Stream& stream) const {
  const Routing routed = router_.route(hidden, buffers.router, stream);
  const auto routed_at = Clock::now();
  const Routing kept = skipping_.apply(routed, policies, buffers.skipping, context_.counters, stream);
  const auto decided_at = Clock::now();
  context_.pairs.count(config_.moe_layer, policies, routed, kept);
  if (observer_) observer_(config_, policies, routed, kept);
  run_experts({.layer = config_.layer,
               .moe_layer = config_.moe_layer,
               .hidden = hidden,
               .routing = kept,
               .routed_ids = routed.expert_ids,
               .policies = policies},
              buffers, out, stream);
  skipping_.add_bypassed(hidden, policies, out);
  if (context_.meter == nullptr) return;
  context_.meter->add({.moe_layer = config_.moe_layer,
                       .levels = context_.skipping.levels,
                       .policies = policies,
                       .routed = routed,
                       .kept = kept,
                       .deciding_seconds = seconds_between(routed_at, decided_at),
                       .running_seconds = seconds_between(decided_at, Clock::now())});
}

void MoeLayer::run_experts(const DispatchInput& input, MoeBuffers& buffers, Tensor& out, Stream& stream) const {
  DispatchHandle handle = context_.dispatcher.start_dispatch(input, buffers.dispatch, stream);
  const ExpertBatch batch = context_.dispatcher.finish_dispatch(handle, stream);

  Tensor expert_output = buffers.expert_output.first(batch.row_index.num_elements());
  context_.experts.forward(config_.moe_layer, batch, buffers.experts, expert_output, stream);

  context_.dispatcher.start_combine(handle, expert_output, stream);
  context_.dispatcher.finish_combine(handle, out, stream);
}

}  // namespace skipper
