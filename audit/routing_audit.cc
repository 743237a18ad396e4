#include "audit/routing_audit.h"

#include "audit/audit_lines.h"
#include "audit/destinations.h"
#include "audit/logged_placement.h"
#include "audit/pair_scores.h"

namespace skipper {

bool is_audited(uint64_t request, double rate) {
  // The finalizer of SplitMix64: neighbouring ids get unrelated hashes.
  uint64_t hash = request + 0x9e3779b97f4a7c15u;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
  hash ^= hash >> 31;
  return static_cast<double>(hash >> 11) * 0x1p-53 < rate;
}

std::filesystem::path audit_path(const std::filesystem::path& file, int rank, int world_size) {
  return world_size == 1 ? file : std::filesystem::path(file.string() + ".rank" + std::to_string(rank));
}

struct RoutingAudit::Row {
  StepToken token;
  RoutedToken routed;
  uint8_t level = 0;
  std::span<const int32_t> kept;  // kNoExpert where skipped
};

RoutingAudit::RoutingAudit(const AuditConfig& config, const AuditHeader& header, const LevelTable& levels,
                           const ExpertPlacement& placement)
    : rate_(config.rate),
      levels_(levels),
      placement_(placement),
      rank_(header.rank),
      file_(audit_path(config.file, header.rank, header.world_size()), config.max_bytes, config.slow_disk) {
  AuditHeader complete = header;
  log_placement(placement, complete);
  file_.append(to_line(complete));
  write_levels();
}

void RoutingAudit::write_levels() {
  if (levels_version_ == int64_t{levels_.version}) return;
  levels_version_ = levels_.version;
  file_.append(to_line(levels_));
}

void RoutingAudit::begin_step(const RankPlan& plan, uint32_t plan_version) {
  write_levels();
  plan_version_ = plan_version;
  step_tokens_.clear();
  step_has_audited_ = false;
  if (file_.has_ended()) return;
  for (const SequenceStep& step : plan.sequences) {
    const bool audited = is_audited(step.sequence_id, rate_);
    step_has_audited_ |= audited;
    for (int32_t i = 0; i < step.num_tokens; ++i) step_tokens_.push_back({step.sequence_id, step.start + i, audited});
  }
}

void RoutingAudit::observe(const MoeLayerConfig& layer, const TokenPolicies& policies, const Routing& routed,
                           const Routing& kept) {
  if (!step_has_audited_) return;
  const auto top_k = static_cast<size_t>(routed.expert_ids.dim(1));
  for (int64_t t = 0; t < policies.num_tokens(); ++t) {
    const StepToken& token = step_tokens_[static_cast<size_t>(policies.step_token.data<int32_t>()[t])];
    if (!token.is_audited) continue;
    const TokenKind kind{.moe_layer = layer.moe_layer,
                         .token_class = TokenClass{policies.token_class.data<uint8_t>()[t]},
                         .phase = TokenPhase{policies.phase.data<uint8_t>()[t]}};
    const RoutedToken routed_token{.kind = kind,
                                   .experts = {routed.expert_ids.row<int32_t>(t), top_k},
                                   .weights = {routed.expert_weights.row<float>(t), top_k}};
    const Row row{.token = token,
                  .routed = routed_token,
                  .level = policies.level.data<uint8_t>()[t],
                  .kept = {kept.expert_ids.row<int32_t>(t), top_k}};
    file_.append(record_of(layer, row));
  }
}

RoutingRecord RoutingAudit::record_of(const MoeLayerConfig& layer, const Row& row) const {
  PairScores scores = pair_scores(levels_.levels[row.level], row.routed);
  RoutingRecord record{.request = row.token.request,
                       .position = row.token.position,
                       .layer = layer.layer,
                       .moe_layer = layer.moe_layer,
                       .token_class = row.routed.kind.token_class,
                       .phase = row.routed.kind.phase,
                       .level = row.level,
                       .plan_version = plan_version_,
                       .experts = {row.routed.experts.begin(), row.routed.experts.end()},
                       .weights = {row.routed.weights.begin(), row.routed.weights.end()},
                       .kept = {},
                       .on_shadow = {},
                       .scores = std::move(scores.scores),
                       .threshold = scores.threshold,
                       .destinations = destinations_of(row.kept, placement_.homes_seen_from(rank_, layer.moe_layer))};
  for (const int32_t expert : row.kept) {
    record.kept.push_back(expert != kNoExpert);
    if (placement_.has_shadows()) record.on_shadow.push_back(expert >= placement_.num_experts());
  }
  return record;
}

}  // namespace skipper
