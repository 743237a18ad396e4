#include "expert_parallel/skip_meter.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>

#include "expert_parallel/token_rules.h"

namespace skipper {
namespace {

using PairsByPhase = std::array<SkipCost, kNumTokenPhases>;

int64_t num_experts(const Tensor& expert_ids, int64_t token) {
  const int32_t* ids = expert_ids.row<int32_t>(token);
  return expert_ids.dim(1) - std::count(ids, ids + expert_ids.dim(1), kNoExpert);
}

PairsByPhase count_pairs(const MeteredBatch& batch) {
  PairsByPhase pairs{};
  BatchRules rules(batch.levels, batch.moe_layer, batch.policies);
  const uint8_t* phases = batch.policies.phase.data<uint8_t>();
  for (int64_t t = 0; t < batch.policies.num_tokens(); ++t) {
    SkipCost& of_phase = pairs[phases[t]];
    const int64_t num_run = num_experts(batch.kept.expert_ids, t);
    of_phase.pairs_run += num_run;
    if (rules.of(t).skip_nothing() || rules.of(t).may_use_shadows()) continue;  // what a shadow saves is on the wire
    const int64_t num_routed = num_experts(batch.routed.expert_ids, t);
    of_phase.pairs_decided += num_routed;
    of_phase.pairs_skipped += num_routed - num_run;
  }
  return pairs;
}

double share(int64_t part, int64_t whole) { return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole); }

}  // namespace

SkipCost& SkipCost::operator-=(const SkipCost& other) {
  deciding_seconds -= other.deciding_seconds;
  running_seconds -= other.running_seconds;
  pairs_decided -= other.pairs_decided;
  pairs_skipped -= other.pairs_skipped;
  pairs_run -= other.pairs_run;
  return *this;
}

void SkipMeter::add(const MeteredBatch& batch) {
  const PairsByPhase pairs = count_pairs(batch);
  int64_t num_decided = 0, num_run = 0;
  for (const SkipCost& of_phase : pairs) {
    num_decided += of_phase.pairs_decided;
    num_run += of_phase.pairs_run;
  }
  CHECK_LE((static_cast<size_t>(batch.moe_layer) + 1) * kNumTokenPhases, costs_.size());
  SkipCost* costs = costs_.data() + static_cast<size_t>(batch.moe_layer) * kNumTokenPhases;
  for (size_t phase = 0; phase < kNumTokenPhases; ++phase) {
    costs[phase].deciding_seconds += batch.deciding_seconds * share(pairs[phase].pairs_decided, num_decided);
    costs[phase].running_seconds += batch.running_seconds * share(pairs[phase].pairs_run, num_run);
    costs[phase].pairs_decided += pairs[phase].pairs_decided;
    costs[phase].pairs_skipped += pairs[phase].pairs_skipped;
    costs[phase].pairs_run += pairs[phase].pairs_run;
  }
}

}  // namespace skipper
