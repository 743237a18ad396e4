// Writes what the router chose and what skipping left of it, for some of the requests.
#pragma once

#include <cstdint>
#include <vector>

#include "audit/audit_config.h"
#include "audit/audit_file.h"
#include "cluster/operating_point.h"
#include "cluster/step_plan.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/moe_layer.h"

namespace skipper {

// The same answer on every rank and in every run: a hash of the id decides. rate is a share, 0 to 1.
bool is_audited(uint64_t request, double rate);

// The file of one rank: "audit.jsonl" alone, "audit.jsonl.rank2" among several.
std::filesystem::path audit_path(const std::filesystem::path& file, int rank, int world_size);

// Engine thread only; observe() costs time for tokens of audited requests alone. Requests that end and come again (preemption)
// have lines twice.
class RoutingAudit {
 public:
  // `levels` is the table that the model reads; it and `placement`, whose owners and shadows the header gets, outlive this
  // object. Throws Error when the file cannot be written.
  RoutingAudit(const AuditConfig& config, const AuditHeader& header, const LevelTable& levels, const ExpertPlacement& placement);

  // Before the forward pass: which request and position each row of the step is, and which version of the experts it runs on (0
  // where none are switched).
  void begin_step(const RankPlan& plan, uint32_t plan_version = 0);
  // Whether observe() is of use in this step.
  bool wants_step() const { return step_has_audited_; }
  // A RoutingObserver.
  void observe(const MoeLayerConfig& layer, const TokenPolicies& policies, const Routing& routed, const Routing& kept);

 private:
  struct StepToken {
    uint64_t request = 0;
    int32_t position = 0;
    bool is_audited = false;
  };
  struct Row;

  void write_levels();
  RoutingRecord record_of(const MoeLayerConfig& layer, const Row& row) const;

  const double rate_;
  const LevelTable& levels_;
  const ExpertPlacement& placement_;
  const int rank_;
  AuditFile file_;
  int64_t levels_version_ = -1;  // of the table written last
  uint32_t plan_version_ = 0;  // of the step
  std::vector<StepToken> step_tokens_;
  bool step_has_audited_ = false;
};

}  // namespace skipper
