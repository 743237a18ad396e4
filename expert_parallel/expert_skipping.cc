#include "expert_parallel/expert_skipping.h"

#include <glog/logging.h>

#include <algorithm>
#include <functional>
#include <span>

#include "expert_parallel/destination_rule.h"
#include "expert_parallel/kept_weights.h"
#include "expert_parallel/pair_rule.h"
#include "expert_parallel/shadow_rule.h"

namespace skipper {

namespace {

int64_t count_experts(const int32_t* ids, int64_t top_k) {
  return top_k - std::count(ids, ids + top_k, kNoExpert);
}

int64_t count_shadows(const int32_t* ids, int64_t top_k, int num_experts) {
  return std::count_if(ids, ids + top_k, [=](int32_t id) { return id >= num_experts; });
}

void count_pairs_on_shadows(const Routing& kept, const TokenPolicies& policies, const ExpertPlacement& placement,
                            TrafficCounters& counters) {
  if (!placement.has_shadows()) return;
  const int64_t top_k = kept.expert_ids.dim(1);
  for (int64_t t = 0; t < kept.expert_ids.dim(0); ++t) {
    const int64_t on_shadows = count_shadows(kept.expert_ids.row<int32_t>(t), top_k, placement.num_experts());
    counters.pairs_on_shadows[policies.token_class.data<uint8_t>()[t]] += on_shadows;
    policies.add_usage(t, UsageColumn::kPairsOnShadows, static_cast<int32_t>(on_shadows));
  }
}

void count_pairs(const Routing& routed, const Routing& kept, const TokenPolicies& policies, TrafficCounters& counters) {
  const int64_t top_k = routed.expert_ids.dim(1);
  const uint8_t* classes = policies.token_class.data<uint8_t>();
  const bool all_run = routed.expert_ids.bytes() == kept.expert_ids.bytes();
  for (int64_t t = 0; t < routed.expert_ids.dim(0); ++t) {
    const int64_t num_run = count_experts(kept.expert_ids.row<int32_t>(t), top_k);
    const int64_t num_skipped = all_run ? 0 : count_experts(routed.expert_ids.row<int32_t>(t), top_k) - num_run;
    counters.pairs_run[classes[t]] += num_run;
    counters.pairs_skipped[classes[t]] += num_skipped;
    policies.add_usage(t, UsageColumn::kPairsRun, static_cast<int32_t>(num_run));
    policies.add_usage(t, UsageColumn::kPairsSkipped, static_cast<int32_t>(num_skipped));
  }
}

void apply_rules_of_tokens(const SkipBatch& batch) {
  const auto top_k = static_cast<size_t>(batch.kept_ids.dim(1));
  for (int64_t token = 0; token < batch.rules.num_tokens(); ++token) {
    const std::span<int32_t> kept_ids(batch.kept_ids.row<int32_t>(token), top_k);
    apply_token_rules(pairs_of(batch.routed, token), batch.rules.of(token), batch.destinations, kept_ids);
  }
}

bool any_level_bypasses(const LevelTable& levels) {
  return std::ranges::any_of(levels.levels, [](const OperatingPoint& point) {
    return std::ranges::any_of(point.identity_bypass, [](const auto& layers) { return !layers.empty(); });
  });
}

bool any_token_renormalizes(BatchRules& rules) {
  for (int64_t token = 0; token < rules.num_tokens(); ++token) {
    if (rules.of(token).renormalize) return true;
  }
  return false;
}

// The routed weights, or a copy with those of the levels that renormalize.
Tensor weights_of_survivors(const SkipBatch& batch, const Tensor& buffer) {
  if (!any_token_renormalizes(batch.rules)) return batch.routed.expert_weights;
  const int64_t num_tokens = batch.rules.num_tokens();
  const auto top_k = static_cast<size_t>(batch.kept_ids.dim(1));
  Tensor weights = buffer.first(num_tokens);
  std::ranges::copy(batch.routed.expert_weights.span<float>(), weights.span<float>().begin());
  for (int64_t token = 0; token < num_tokens; ++token) {
    if (!batch.rules.of(token).renormalize) continue;
    renormalize(pairs_of(batch.routed, token), {batch.kept_ids.row<int32_t>(token), top_k},
                {weights.row<float>(token), top_k});
  }
  return weights;
}

}  // namespace

SkippingBuffers::SkippingBuffers(int64_t max_tokens, int64_t top_k)
    : kept_ids(Tensor::empty({max_tokens, top_k}, DType::kI32)),
      kept_weights(Tensor::empty({max_tokens, top_k}, DType::kF32)) {}

void apply_token_rules(const TokenPairs& routed, const TokenRules& rules, const Destinations& destinations,
                       std::span<int32_t> kept_ids) {
  if (rules.is_bypassed) {
    std::ranges::fill(kept_ids, kNoExpert);
    return;
  }
  std::ranges::copy(routed.ids, kept_ids.begin());
  const PairShares shares(routed);
  if (keeps_all_pairs(shares, rules)) return;
  apply_pair_rule(shares, rules, destinations, kept_ids);
  apply_destination_rule(shares, rules, destinations, kept_ids);
  apply_shadow_rule(shares, rules, destinations, kept_ids);
}

ExpertSkipping::ExpertSkipping(const SkippingContext& context, const LayerIndex& index) : context_(context), index_(index) {}

Routing ExpertSkipping::apply(const Routing& routed, const TokenPolicies& policies, SkippingBuffers& buffers,
                              TrafficCounters& counters, Stream& stream) const {
  Routing kept = routed;
  BatchRules rules(context_.levels, index_.moe_layer, policies);
  const Destinations seen_from_here = destinations();
  const SkipBatch batch{routed, kept.expert_ids, rules, seen_from_here};
  const bool may_skip = any_token_may_skip(policies);
  if (may_skip) {
    kept.expert_ids = buffers.kept_ids.first(rules.num_tokens());
    apply_rules_of_tokens(batch);
    apply_decode_rules(batch, buffers.decode_experts);
  }
  limit_load(batch, buffers.rank_load, stream);
  if (may_skip) kept.expert_weights = weights_of_survivors(batch, buffers.kept_weights);
  count_pairs(routed, kept, policies, counters);
  count_pairs_on_shadows(kept, policies, context_.placement, counters);
  return kept;
}

void ExpertSkipping::add_bypassed(const Tensor& hidden, const TokenPolicies& policies, Tensor& out) const {
  if (!any_level_bypasses(context_.levels)) return;
  BatchRules rules(context_.levels, index_.moe_layer, policies);
  const int64_t width = hidden.row_elements();
  for (int64_t token = 0; token < rules.num_tokens(); ++token) {
    if (!rules.of(token).is_bypassed) continue;
    const float* from = hidden.row<float>(token);
    std::transform(from, from + width, out.row<float>(token), out.row<float>(token), std::plus<>());
  }
}

bool ExpertSkipping::any_token_may_skip(const TokenPolicies& policies) const {
  BatchRules rules(context_.levels, index_.moe_layer, policies);
  for (int64_t token = 0; token < rules.num_tokens(); ++token) {
    if (!rules.of(token).skip_nothing()) return true;
  }
  return false;
}

void ExpertSkipping::limit_load(const SkipBatch& batch, RankLoad& load, Stream& stream) const {
  if (!any_level_limits_ranks(context_.levels)) return;
  context_.data.set_context({.layer = index_.layer, .phase = "rank capacity"});
  limit_rank_load(batch, load, context_.data, stream);
}

Destinations ExpertSkipping::destinations() const {
  const int own_rank = context_.data.rank();
  return {.homes = context_.placement.homes_seen_from(own_rank, index_.moe_layer),
          .topology = context_.topology,
          .own_rank = own_rank,
          .shadow_errors = context_.placement.shadow_errors(own_rank, index_.moe_layer)};
}

}  // namespace skipper
