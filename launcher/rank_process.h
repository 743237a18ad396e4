// One rank from its communicators to its engine; reads as the start-up order. Shared by all commands that run the model.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "audit/audit_config.h"
#include "audit/expert_load.h"
#include "audit/routing_audit.h"
#include "base/thread_pool.h"
#include "cluster/cluster_topology.h"
#include "cluster/health_monitor.h"
#include "cluster/operating_point.h"
#include "comm/communicator_factory.h"
#include "configs/server_config.h"
#include "engine/engine.h"
#include "guard/reference_experts.h"
#include "guard/reference_loader.h"
#include "launcher/budget_planner.h"
#include "launcher/device_choice.h"
#include "launcher/live_planner.h"
#include "launcher/policies.h"
#include "launcher/served_plan.h"
#include "launcher/tenant_place.h"
#include "model/kv_cache.h"
#include "model/model_config.h"
#include "model/multimodal_model.h"
#include "processor/multimodal_processor.h"

namespace skipper {

// Which experts can be switched while they serve.
enum class SwitchUse : uint8_t {
  kNone,
  kPolicies,  // those of policies, from --policies or the settings
  kAll,       // those of every plan that can be: somebody may post other budgets
};

// What the command line decides; the rest is in the config.
struct RankOptions {
  std::filesystem::path model;
  std::filesystem::path operating_point;  // empty: level 0 alone
  std::filesystem::path plan;             // empty: equal blocks of experts in one format, or a plan for `budgets`
  std::vector<PolicyFile> policies = {};  // that can be switched to; `plan` is that of the first one to serve
  size_t first_policy = 0;
  std::filesystem::path disk;             // directory for experts that the plan puts on disk; empty: there is none
  PlanUse plan_use = PlanUse::kServing;
  BudgetOptions budgets = {};             // with a memory: rank 0 plans at start, and all ranks load that
  TenantOptions tenant = {};              // whose share is the memory of `budgets`
  int level = -1;                         // −1: 1 for operating_point.json, an error for a ladder of several levels
  bool fits_model_len = true;             // lower max_model_len to the checkpoint's; otherwise a larger one is refused
  AuditConfig audit = {};                 // of routing decisions; off without a file
  bool switches_layers_off = false;       // as config.skipping says; others measure what skipping does, whatever it costs
  bool guards_experts = false;            // as config.guard says; others measure what they are given
  SwitchUse switches = SwitchUse::kNone;
  DeviceChoice device = DeviceChoice::kCpu;
};

// Everything a rank needs to step. Members are in start-up order and end in reverse.
class RankProcess {
 public:
  // Joins the group and reads everything small: configuration (by `load_config`), levels, tokenizer. An error on one rank is
  // thrown on all, once the others know; so it is with load(). Ranks that read different things refuse to start. Engine thread
  // only.
  RankProcess(std::function<ServerConfig()> load_config, RankOptions options);

  // Loads the weights of this rank and allocates its step buffers and KV cache, on the GPU if the rank computes there.
  void load();
  // Shows `observer` every routing decision of this rank, beside those who see them already; after load(), on a CPU.
  void add_routing_observer(RoutingObserver observer);
  // No further decision is written to the audit, whose file is then whole. Between steps.
  void end_audit();
  // Builds the engine; after load(). `observer` hears every step at rank 0.
  Engine& start_engine(StepObserver observer);

  // Whether experts can be switched while they serve.
  bool has_policies() const { return !policies_.traits.empty(); }
  // Of tiers that have one, the place of the lowest policy that their requests run under.
  const std::map<std::string, uint16_t>& tier_policies() const { return tier_policies_; }
  // A plan for other budgets. Rank 0, after load(), thread-safe. Throws InvalidRequest, also where experts are not switched.
  PostedPlan plan_for_memory(const std::string& memory) const;
  bool is_leader() const { return group_.control->rank() == 0; }
  int world_size() const { return group_.control->size(); }
  Communicator& control() { return *group_.control; }
  // For run_together(): its deadline leaves time to load weights.
  Communicator& startup() const { return *group_.startup; }
  const ServerConfig& config() const { return config_; }
  const ModelConfig& model_config() const { return model_config_; }
  const MultimodalProcessor& processor() const { return *processor_; }
  const LevelTable& levels() const { return levels_; }
  const ClusterTopology& topology() const { return *topology_; }
  PlacementWorld world() const;  // where levels shall apply
  std::string plan_text() const { return plan_ ? plan_->text : ""; }  // the same on every rank; empty without a plan
  uint8_t level() const { return level_; }
  Device device() const { return device_; }
  // Of a server that shares its host's memory; else null.
  TenantPlace* tenant() { return tenant_ ? &*tenant_ : nullptr; }
  const std::string& tenant_name() const { return options_.tenant.name; }
  // The plan that a tenant was started with, and any other text of a plan for these ranks.
  ExpertPlan first_plan() const { return read_plan(plan_->text); }
  ExpertPlan read_plan(const std::string& text) const;
  // After load().
  MultimodalModel& model() { return *model_; }
  ModelRunner& runner() { return *runner_; }
  ThreadPool& workers() { return *workers_; }
  RequestQueue& queue() { return *queue_; }
  const HealthMonitor& health() const { return *health_; }
  HealthMonitor& health() { return *health_; }

 private:
  void read_model();
  void take_tenant_share();
  void warn_of_other_point();
  void plan_for_budgets();
  std::string make_plan_text() const;
  PlanReader plan_reader() const;
  void start_workers();
  void choose_device();
  void join_gpus();
  void load_model();
  void load_reference();
  void take_configured_policies();
  void read_policies();
  void take_only_policy();
  void check_tiers();
  void start_stager();
  PolicyParts policy_parts() const;
  void ask_for_disks();
  std::vector<int64_t> gather_from_all(int64_t own) const;
  void size_kv_cache();
  int64_t kv_blocks_that_fit() const;
  void allocate_kv_cache();
  void watch_routing();
  std::string served_name() const;

  ServerConfig config_;
  RankOptions options_;
  ProcessGroup group_;
  std::optional<TenantPlace> tenant_;  // of a server that shares its host's memory; ends after all that takes memory
  Device device_;
  // Shared, for a build without CUDA does not know how to end one.
  std::shared_ptr<NcclCommunicator> gpu_data_;
  ModelConfig model_config_;
  LevelTable levels_;
  uint8_t level_ = 0;
  std::optional<ServedPlan> plan_;
  ServedPolicies policies_;
  std::map<std::string, uint16_t> tier_policies_;
  std::unique_ptr<MultimodalProcessor> processor_;
  std::unique_ptr<ClusterTopology> topology_;
  std::unique_ptr<ThreadPool> workers_;
  std::unique_ptr<MultimodalModel> model_;
  DiskReports disks_ = DiskReports::kNone;
  std::optional<ReferenceLoader> reference_loader_;  // of a rank with a guard
  std::unique_ptr<ReferenceExperts> reference_;      // the same
  std::unique_ptr<ExpertStager> stager_;         // of a server with policies
  std::unique_ptr<LivePlanner> planner_;         // the same, at rank 0
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<ModelRunner> runner_;
  std::unique_ptr<ExpertLoad> load_;
  std::unique_ptr<RoutingAudit> audit_;
  std::vector<RoutingObserver> routing_observers_;
  std::unique_ptr<RequestQueue> queue_;
  std::unique_ptr<HealthMonitor> health_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace skipper
