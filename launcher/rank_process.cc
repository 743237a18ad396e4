#include "launcher/rank_process.h"

#include <glog/logging.h>

#include <algorithm>
#include <chrono>

#include "base/build_config.h"
#include "base/error.h"
#include "comm/nccl_communicator.h"
#include "launcher/core_share.h"
#include "launcher/guard_setup.h"
#include "launcher/point_identity.h"
#include "launcher/progress_line.h"
#include "launcher/startup_agreement.h"
#include "model/weight_loader.h"
#include "tensor/gpu_properties.h"

namespace skipper {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kQuietLoad{2000};
constexpr size_t kMegabyte = 1'000'000;

// Level 0 without a file; the one operating point of a file with one; a ladder needs to be told.
uint8_t choose_level(const RankOptions& options, const LevelTable& levels) {
  const int highest = levels.num_levels() - 1;
  if (options.level > highest) {
    throw Error("level " + std::to_string(options.level) + " does not exist; " + options.operating_point.string() +
                " has levels 0 to " + std::to_string(highest));
  }
  if (options.level >= 0) return static_cast<uint8_t>(options.level);
  if (highest > 1) {
    throw Error(options.operating_point.string() + " has levels 0 to " + std::to_string(highest) + "; choose one with --level");
  }
  return static_cast<uint8_t>(highest);
}

// The context that checkpoint and KV cache both allow.
int64_t fitting_model_len(const EngineConfig& engine, const ModelConfig& model) {
  return std::min({engine.max_model_len, model.max_position_embeddings, engine.kv_tokens_per_rank()});
}

}  // namespace

RankProcess::RankProcess(std::function<ServerConfig()> load_config, RankOptions options)
    : options_(std::move(options)), group_(join_process_group()) {
  Stream stream;
  topology_ = std::make_unique<ClusterTopology>(ClusterTopology::discover(startup(), group_.host_name, stream));
  run_together(startup(), [&] {
    config_ = load_config();
    take_configured_policies();
    choose_device();
    read_model();
  });
  require_same_everywhere(startup(), "kind of device", device_ == Device::host() ? "CPU" : "GPU");
  require_same_everywhere(startup(), "model fingerprint", model_config_.fingerprint);
  require_same_everywhere(startup(), "settings", describe(config_));
  require_same_everywhere(startup(), "operating points", describe(levels_));
  require_same_everywhere(startup(), "level", std::to_string(level_));
  if (!options_.tenant.name.empty()) take_tenant_share();
  if (!options_.budgets.memory.empty()) plan_for_budgets();
  take_only_policy();
  run_together(startup(), [&] { check_tiers(); });
  require_same_everywhere(startup(), "plan", plan_ ? plan_->text : "none");
  require_same_everywhere(startup(), "policies", policies_.text);
  warn_of_other_point();
  open_communicators(config_.comm, group_);
}

void RankProcess::warn_of_other_point() {
  if (!plan_ || startup().rank() != 0) return;
  if (const auto mismatch = point_mismatch(plan_->profiled_point, levels_.levels[level_])) LOG(WARNING) << *mismatch;
}

void RankProcess::load() {
  const auto start = Clock::now();
  start_workers();
  join_gpus();
  run_together(startup(), [this] { load_model(); });
  ask_for_disks();
  run_together(startup(), [this] { load_reference(); });
  run_together(startup(), [this] { start_stager(); });
  size_kv_cache();
  run_together(startup(), [this] { allocate_kv_cache(); });
  LOG(INFO) << "rank=" << control().rank() << " loaded model=" << options_.model.string()
            << " seconds=" << std::chrono::duration<double>(Clock::now() - start).count() << " ranks=" << world_size()
            << " nodes=" << topology_->num_nodes() << " threads=" << workers_->num_threads()
            << " kv_blocks=" << config_.engine.kv_blocks_per_rank << " device='" << describe_device(device_) << "'";
}

// In time: only a GPU has memory of its own to fill with blocks.
void RankProcess::choose_device() {
  device_ = skipper::choose_device(options_.device, group_.node_rank);
  if (device_ == Device::host() && config_.engine.kv_blocks_per_rank == 0) {
    throw Error("engine.kv_blocks_per_rank: 0 stands for what the memory of a GPU holds, but the model computes on the CPU; give "
                "a number");
  }
  if (device_ != Device::host() && !config_.dispatch.rows_travel()) {
    throw Error("dispatch.payload: off is for ranks that compute on CPUs; use --device cpu, or leave it out");
  }
}

// How GPUs of several ranks reach one another. All ranks call it together.
void RankProcess::join_gpus() {
  if constexpr (kBuiltWithCuda) {
    if (device_ == Device::host() || world_size() == 1) return;
    gpu_data_ = std::make_shared<NcclCommunicator>(control(), device_, config_.comm);
  }
}

// A share of cores depends on who else is on the host.
void RankProcess::start_workers() {
  const int share = core_share_of_this_rank(startup(), *topology_);
  const auto threads = static_cast<int>(config_.cpu.threads);
  workers_ = std::make_unique<ThreadPool>(threads > 0 ? threads : share);
}

void RankProcess::read_model() {
  model_config_ = load_model_config(options_.model);
  if (!options_.plan.empty()) {
    plan_ = load_served_plan(options_.plan, plan_reader(), config_);
    read_policies();
  }
  EngineConfig& engine = config_.engine;
  if (!options_.fits_model_len && engine.max_model_len > fitting_model_len(engine, model_config_)) {
    throw Error("max_model_len " + std::to_string(engine.max_model_len) + " is more than the checkpoint's " +
                std::to_string(model_config_.max_position_embeddings) + " or the KV cache's " +
                std::to_string(engine.kv_tokens_per_rank()) + " tokens; lower it, or raise engine.kv_blocks_per_rank");
  }
  engine.max_model_len = fitting_model_len(engine, model_config_);
  config_.validate();
  check_formats(model_config_, config_.weights);
  const ModelIdentity model{.fingerprint = model_config_.fingerprint,
                            .num_moe_layers = model_config_.num_moe_layers(),
                            .num_experts = static_cast<int>(model_config_.moe.num_experts)};
  levels_ = options_.operating_point.empty()
                ? unskipped_levels(model.num_moe_layers)
                : load_levels(options_.operating_point, model, world());
  level_ = choose_level(options_, levels_);
  for (const auto& [tier, tier_level] : config_.service_tiers) {
    if (tier_level < levels_.num_levels()) continue;
    throw Error("service_tiers." + tier + ": level " + std::to_string(tier_level) + " does not exist; the levels are 0 to " +
                std::to_string(levels_.num_levels() - 1));
  }
  processor_ = std::make_unique<MultimodalProcessor>(options_.model, model_config_, config_.images);
  queue_ = std::make_unique<RequestQueue>(engine.queue_capacity);
  health_ = std::make_unique<HealthMonitor>(config_.frontend.stall_timeout);
}

PlacementWorld RankProcess::world() const {
  PlacementWorld world = placement_world(*topology_);
  world.shadows = plan_ && plan_->assignment.placement.has_shadows() ? ShadowCopies::kSome : ShadowCopies::kNone;
  return world;
}

// From here on the server plans as if its ranks' parts of the share had been named by --memory. All ranks call it together.
void RankProcess::take_tenant_share() {
  run_together(startup(), [&] {
    const std::string rule = "tenant '" + options_.tenant.name + "': tenants share the memory of one host, but ";
    if (topology_->num_nodes() > 1) throw Error(rule + "these ranks are on several; use one, or leave --tenant out");
    if (device_ != Device::host()) throw Error(rule + "the model computes on a GPU; use --device cpu, or leave --tenant out");
  });
  tenant_.emplace(options_.tenant, startup(), [&] {
    BudgetOptions budgets = options_.budgets;
    budgets.memory = "0";
    const BudgetPlanner planner({options_.model, model_config_, startup().size(), ComputePlace::kHost}, config_, budgets);
    const MemoryRange range = memory_range_of(planner.request());
    RankNeeds needs{.least = static_cast<int64_t>(range.least), .most = static_cast<int64_t>(range.most)};
    needs.can_replan = !model_config_.quantization && options_.disk.empty();
    if (needs.can_replan) needs.staging = static_cast<int64_t>(range.layer);
    return needs;
  });
  options_.budgets.memory = std::to_string(tenant_->memory_per_rank());
}

// Rank 0 plans, so that the others need no profile. All ranks call it together.
void RankProcess::plan_for_budgets() {
  std::string text;
  run_together(startup(), [&] {
    if (startup().rank() == 0) text = make_plan_text();
  });
  Stream stream;
  uint64_t size = text.size();
  startup().broadcast({reinterpret_cast<std::byte*>(&size), sizeof(size)}, 0, stream);
  text.resize(size);
  startup().broadcast({reinterpret_cast<std::byte*>(text.data()), text.size()}, 0, stream);
  run_together(startup(), [&] {
    plan_ = read_served_plan(text, plan_reader(), config_);
  });
}

PlanReader RankProcess::plan_reader() const {
  return {model_config_, startup().rank(), startup().size(), device_.kind, options_.disk, options_.model, options_.plan_use};
}

std::string RankProcess::make_plan_text() const {
  const ComputePlace place = device_ == Device::host() ? ComputePlace::kHost : ComputePlace::kDevice;
  const BudgetPlanner planner({options_.model, model_config_, startup().size(), place}, config_, options_.budgets);
  const ExpertPlan plan = plan_for(planner.request());
  LOG(INFO) << "planned memory=" << options_.budgets.memory << " target=" << plan.origin.target << " profile="
            << (plan.origin.profile == "measured" ? options_.budgets.profile : "analytic (losses by the model's shape alone)")
            << " loss=" << plan.predicted.loss << " expert_bits=" << plan.predicted.expert_bits
            << " gap=" << plan.certificate.gap;
  return to_json(plan);
}

void RankProcess::load_model() {
  const EngineConfig& engine = config_.engine;
  const ParallelContext parallel{.data = *group_.data,
                                 .topology = *topology_,
                                 .levels = levels_,
                                 .formats = config_.dispatch,
                                 .device = device_,
                                 .gpu_data = gpu_data_.get(),
                                 .graphs = config_.gpu.cuda_graphs ? GraphUse::kDecodeSteps : GraphUse::kNone,
                                 .node_relay = config_.gpu.node_relay ? NodeRelayUse::kPrompts : NodeRelayUse::kNone};
  const StepLimits limits{engine.max_tokens_per_step, engine.max_logit_rows, engine.max_sequences_per_rank, engine.max_model_len};
  ProgressLine progress("loading weights, MB", kQuietLoad);
  const auto show = [&](size_t done, size_t total) {
    if (group_.control->rank() == 0) progress(done / kMegabyte, total / kMegabyte);
  };
  ExpertTierConfig gpu_experts{.others = config_.gpu.host_experts};
  if (config_.gpu.device_expert_mb >= 0) gpu_experts.device_bytes = static_cast<size_t>(config_.gpu.device_expert_mb) * kMegabyte;
  if (has_policies()) plan_->assignment.memory = ExpertMemory::kPerExpert;  // a switch frees what it replaces
  model_ = std::make_unique<MultimodalModel>(options_.model, model_config_, parallel, limits,
                                             WeightLoading{.formats = config_.weights,
                                                           .workers = *workers_,
                                                           .progress = show,
                                                           .gpu_experts = gpu_experts,
                                                           .expert_tiers = std::nullopt,
                                                           .assignment = plan_ ? std::optional(plan_->assignment)
                                                                               : std::nullopt,
                                                           .disk = plan_ ? plan_->disk : std::nullopt});
}

void RankProcess::load_reference() {
  if (!options_.guards_experts || !config_.guard.is_on()) return;
  std::vector<ReferenceRoom> rooms = policies_.reference_rooms;
  if (rooms.empty() && plan_) rooms.push_back({"the plan", plan_->reference_room});
  for (const ReferenceRoom& room : rooms) {
    require_room_for_reference(config_.guard, model_->expert_store(), room, startup().rank());
  }
  reference_loader_.emplace(config_.guard, options_.model, model_config_, config_.weights);
  reference_ = reference_loader_->load(model_->expert_store(), *workers_);
}

// The section `policies` stands for --policies and --policy.
void RankProcess::take_configured_policies() {
  const PolicyConfig& configured = config_.policies;
  if (options_.switches == SwitchUse::kNone || configured.plans.empty()) return;
  const std::pair<const char*, bool> others[] = {{"policies", !options_.policies.empty()},
                                                 {"plan", !options_.plan.empty()},
                                                 {"memory", !options_.budgets.memory.empty()},
                                                 {"tenant", !options_.tenant.name.empty()},
                                                 {"disk", !options_.disk.empty()}};
  for (const auto& [flag, given] : others) {
    if (!given) continue;
    throw UsageError(std::string("flag --") + flag + " and the section policies of --config exclude each other; give one");
  }
  options_.policies = configured.plans;
  options_.first_policy = place_of_policy(options_.policies, configured.first, "policies.first");
  options_.plan = options_.policies[options_.first_policy].plan;
}

void RankProcess::read_policies() {
  if (options_.policies.empty()) return;
  policies_ = load_policies(options_.policies, plan_reader(), config_);
}

// A server that was started with one plan can change to others: posted ones, or those that a tenant makes for its share.
void RankProcess::take_only_policy() {
  if (options_.switches != SwitchUse::kAll || !options_.policies.empty() || !plan_) return;
  if (device_ != Device::host() || model_config_.quantization) return;
  const bool is_of_budgets = !options_.budgets.memory.empty();
  policies_ = only_policy(is_of_budgets ? "memory:" + options_.budgets.memory : options_.plan.stem().string(), *plan_);
}

void RankProcess::check_tiers() {
  if (options_.switches != SwitchUse::kNone) tier_policies_ = places_of_tiers(config_, policies_.traits);
}

void RankProcess::start_stager() {
  if (!has_policies()) return;
  const auto read_plan = [this](const std::string& text) {
    return read_posted_policy(text, model_->placement(), plan_reader(), config_);
  };
  StagingSource source{options_.model, config_.weights, *model_, read_plan};
  if (reference_) {
    source.prepare = [this](const ExpertPolicy& policy) {
      reference_->learn(reference_loader_->measure(policy.assignment.slots_of_rank(startup().rank()), *reference_));
    };
  }
  stager_ = std::make_unique<ExpertStager>(std::move(source), std::move(policies_.policies), options_.first_policy);
  if (is_leader()) planner_ = std::make_unique<LivePlanner>(options_.model, plan_reader(), config_, options_.budgets, *plan_);
}

PostedPlan RankProcess::plan_for_memory(const std::string& memory) const {
  if (planner_) return planner_->plan_for_memory(memory);
  throw InvalidRequest("memory: the experts of this server are not switched", "memory");
}

ExpertPlan RankProcess::read_plan(const std::string& text) const {
  return parse_expert_plan(text, "the plan of rank 0", subject_of(plan_reader()));
}

PolicyParts RankProcess::policy_parts() const {
  return {.stager = stager_.get(), .policies = policies_.traits, .first = static_cast<uint16_t>(options_.first_policy)};
}

// All ranks have as many blocks as the one with the least memory: the scheduler knows one number. All ranks call it together.
void RankProcess::size_kv_cache() {
  if (config_.engine.kv_blocks_per_rank > 0) return;
  config_.engine.kv_blocks_per_rank = std::ranges::min(gather_from_all(kv_blocks_that_fit()));
}

// One number of each rank. All ranks call it together.
std::vector<int64_t> RankProcess::gather_from_all(int64_t own) const {
  std::vector<int64_t> all(static_cast<size_t>(world_size()));
  Stream stream;
  startup().all_gather({reinterpret_cast<const std::byte*>(&own), sizeof(own)},
                       {reinterpret_cast<std::byte*>(all.data()), all.size() * sizeof(own)}, stream);
  return all;
}

// A plan may put experts of some ranks on disk. All ranks call it together.
void RankProcess::ask_for_disks() {
  const bool is_any = std::ranges::max(gather_from_all(model_->disk_residence() == nullptr ? 0 : 1)) > 0;
  disks_ = is_any ? DiskReports::kEveryStep : DiskReports::kNone;
}

// What the weights and step buffers of all ranks on this GPU have left over, less a reserve.
int64_t RankProcess::kv_blocks_that_fit() const {
  const size_t reserved = static_cast<size_t>(config_.gpu.reserved_mb) * kMegabyte;
  const size_t free_bytes = gpu_properties(device_.index).free_bytes;
  const size_t usable = free_bytes > reserved ? free_bytes - reserved : 0;
  const KvCacheConfig one{1, config_.engine.kv_block_size, config_.kv_dtype};
  const size_t num_blocks = usable / KvCache::bytes_per_block(model_config_, one);
  // Slots of the cache are numbered in 32 bits.
  const size_t most_blocks = (size_t{1} << 31) / static_cast<size_t>(config_.engine.kv_block_size) - 1;
  return static_cast<int64_t>(std::min(num_blocks, most_blocks)) / num_ranks_on(device_, group_.node_size);
}

void RankProcess::allocate_kv_cache() {
  const EngineConfig& engine = config_.engine;
  if (engine.kv_tokens_per_rank() < engine.max_model_len || engine.kv_blocks_per_rank == 0) {
    throw Error("the KV cache has room for " + std::to_string(engine.kv_blocks_per_rank * engine.kv_block_size) +
                " tokens beside the weights, less than max_model_len " + std::to_string(engine.max_model_len) +
                "; lower it or gpu.reserved_mb, or spread the model over more GPUs");
  }
  cache_ = std::make_unique<KvCache>(model_config_,
                                     KvCacheConfig{engine.kv_blocks_per_rank, engine.kv_block_size, config_.kv_dtype}, device_);
  runner_ = std::make_unique<ModelRunner>(*model_, *cache_, engine, processor_->token_classes(model_config_.vocab_size));
  watch_routing();
}

// On a CPU loads are always counted; it costs nothing beside routing. A GPU counts by itself, and is observed in steps with
// audited tokens alone.
void RankProcess::watch_routing() {
  const bool is_on_cpu = device_ == Device::host();
  const ExpertPlacement& placement = model_->placement();
  load_ = std::make_unique<ExpertLoad>(ExpertLoadShape{placement.num_moe_layers(), placement.num_experts()});
  if (!options_.audit.file.empty()) {
    AuditHeader header{.model_fingerprint = model_config_.fingerprint,
                       .num_moe_layers = placement.num_moe_layers(),
                       .num_experts = placement.num_experts(),
                       .rank = control().rank(),
                       .node_of_rank = {},
                       .bytes_per_row = model_->bytes_per_sent_row()};
    for (int rank = 0; rank < world_size(); ++rank) header.node_of_rank.push_back(topology_->node_of(rank));
    audit_ = std::make_unique<RoutingAudit>(options_.audit, header, levels_, placement);
  }
  const RoutingObserver observer =
      [this, is_on_cpu](const MoeLayerConfig& layer, const TokenPolicies& policies, const Routing& routed, const Routing& kept) {
        if (is_on_cpu) load_->count(layer.moe_layer, policies, kept);
        if (audit_) audit_->observe(layer, policies, routed, kept);
        for (const RoutingObserver& other : routing_observers_) other(layer, policies, routed, kept);
      };
  if (is_on_cpu) model_->set_routing_observer(observer);
  if (!audit_) return;
  runner_->set_step_observer([this, is_on_cpu, observer](const RankPlan& plan) {
    audit_->begin_step(plan, stager_ ? stager_->version() : 0);
    if (!is_on_cpu) model_->set_routing_observer(audit_->wants_step() ? observer : nullptr);
  });
}

void RankProcess::add_routing_observer(RoutingObserver observer) {
  CHECK(load_ && device_ == Device::host()) << "decisions of all steps are seen on a CPU alone, and after load()";
  routing_observers_.push_back(std::move(observer));
}

void RankProcess::end_audit() {
  runner_->set_step_observer(nullptr);
  audit_.reset();
}

// What an operator calls the experts that serve.
std::string RankProcess::served_name() const {
  if (!policies_.traits.empty()) return policies_.traits[options_.first_policy].name;
  if (!options_.plan.empty()) return options_.plan.string();
  if (plan_) return "plan for --memory " + options_.budgets.memory;
  return options_.model.string();
}

Engine& RankProcess::start_engine(StepObserver observer) {
  ExpertLoads loads{.counts = load_->counts()};
  if (device_ != Device::host()) loads.bring_up_to_date = [this] { load_->set(model_->expert_loads()); };
  const EngineParts parts{*group_.control, *group_.data, *runner_, *model_, *queue_, *health_, levels_, *workers_,
                          std::move(loads), level_,
                          options_.switches_layers_off ? config_.skipping : SkipGateConfig{.switch_off = false},
                          {reference_ ? config_.guard : GuardConfig(), reference_.get(), served_name()}, policy_parts(), disks_};
  engine_ = std::make_unique<Engine>(config_.engine, config_.cluster, parts, std::move(observer));
  return *engine_;
}

}  // namespace skipper
