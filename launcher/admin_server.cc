#include "launcher/admin_server.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/json_fields.h"
#include "planning/memory_size.h"

namespace skipper {
namespace {

// What a frontier file says was measured at each level, which the table of levels does not carry.
std::vector<std::string> measured_levels(const std::string& path) {
  std::vector<std::string> measured;
  if (path.empty()) return measured;
  const nlohmann::json document = read_json_file(path);
  if (!document.contains("levels")) return measured;
  for (const nlohmann::json& level : document["levels"]) {
    measured.push_back(level.contains("measured") ? level["measured"].dump() : std::string());
  }
  return measured;
}

ModelIdentity identity_of(const ModelConfig& model) {
  return {.fingerprint = model.fingerprint,
          .num_moe_layers = model.num_moe_layers(),
          .num_experts = static_cast<int>(model.moe.num_experts)};
}

std::vector<std::string> names_of(const std::vector<PolicyTraits>& policies) {
  std::vector<std::string> names;
  for (const PolicyTraits& policy : policies) names.push_back(policy.name);
  return names;
}

std::shared_ptr<const AdminContext> context_of(const CommandLine& line, const RankProcess& process, AdminHooks hooks) {
  return std::make_shared<const AdminContext>(AdminContext{.key = AdminKey::load(line.admin_key_file),
                                                           .model = identity_of(process.model_config()),
                                                           .world = process.world(),
                                                           .measured = measured_levels(line.operating_point),
                                                           .hooks = std::move(hooks)});
}

}  // namespace

AdminServer::AdminServer(const CommandLine& line, const RankProcess& process, MetricsRegistry& metrics)
    : process_(process),
      patience_(process.config().frontend.stall_timeout),
      server_(admin_frontend_config(line.admin_port), make_admin_endpoints(context_of(line, process, hooks())), metrics),
      thread_([this] { server_.run(); }) {}

AdminServer::~AdminServer() {
  server_.stop();
  thread_.join();
}

AdminHooks AdminServer::hooks() {
  return {.report = [this] { return report(); },
          .set_level = [this](int64_t level) { return report_when_in_force(engine().set_level(level)); },
          .append = [this](OperatingPoint point) { return report_when_in_force(engine().append_level(std::move(point))); },
          .guard_state = [this] { return guard().state(); },
          .arm_guard = [this] { return arm_guard(); },
          .policies = [this] { return policies(); },
          .switch_policy = [this](const PolicyRequest& request) { return switch_policy(request); }};
}

Engine& AdminServer::engine() const {
  Engine* engine = engine_;
  if (engine == nullptr) throw Cancelled("the model is loading; try again when /ready answers 200");
  return *engine;
}

OperatingReport AdminServer::report() const {
  OperatingState state = engine().operating_levels().in_force();
  return {.table = std::move(state.table),
          .level = state.level,
          .places = std::move(state.places),
          .switched_off = std::move(state.switched_off)};
}

EngineGuard& AdminServer::guard() const {
  EngineGuard& guard = engine().guard();
  if (guard.is_on()) return guard;
  throw InvalidRequest("this server has no guard; start it with guard.share in its --config", "");
}

// The next step is at most a heartbeat away.
GuardState AdminServer::arm_guard() const {
  EngineGuard& armed = guard();
  if (!armed.wait_for_term(armed.arm(), patience_)) {
    throw Cancelled("no step has armed the guard within " + std::to_string(patience_.count()) +
                    " ms, or the server is stopping; GET tells what serves");
  }
  return armed.state();
}

PolicyReport AdminServer::policies() const {
  const ExpertSwitch& experts = engine().expert_switch();
  if (experts.has_policies()) return {names_of(experts.policies()), experts.state(), experts.versions()};
  throw InvalidRequest("this server has no policies; start it with --policies NAME=PLAN.json,..., or with a plan whose experts "
                       "are all in the memory of CPUs",
                       "");
}

PolicyReport AdminServer::switch_policy(const PolicyRequest& request) const {
  PolicyReport report = policies();
  if (!process_.tenant_name().empty()) {
    throw InvalidRequest("this server is tenant '" + process_.tenant_name() + "', whose share of memory decides its experts; "
                         "change weights, floors or memory in the file of --tenants",
                         "policy");
  }
  SwitchRequest wish{.policy = request.policy, .deadline = request.deadline};
  if (!request.extra_memory.empty()) wish.extra_bytes = parse_memory_size(request.extra_memory, "extra_memory");
  if (!request.memory.empty()) wish.plan = process_.plan_for_memory(request.memory);
  const uint64_t number = engine().switch_experts(std::move(wish));
  report.state = engine().expert_switch().wait_until_ended(number);
  report.versions = engine().expert_switch().versions();
  const SwitchRecord& last = report.state.last;
  if (last.request == number && !last.failure.empty()) throw Cancelled("no switch to " + last.policy + ": " + last.failure);
  return report;
}

OperatingReport AdminServer::report_when_in_force(uint64_t change) const {
  if (!engine().operating_levels().wait_until_in_force(change, patience_)) {
    throw Cancelled("no step has applied the change within " + std::to_string(patience_.count()) +
                    " ms, or the server is stopping; GET tells what is in force");
  }
  return report();
}

}  // namespace skipper
