#include "launcher/admin_server.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/json_fields.h"

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

std::shared_ptr<const AdminContext> context_of(const CommandLine& line, const RankProcess& process, AdminHooks hooks) {
  return std::make_shared<const AdminContext>(AdminContext{.key = AdminKey::load(line.admin_key_file),
                                                           .model = identity_of(process.model_config()),
                                                           .world = placement_world(process.topology()),
                                                           .measured = measured_levels(line.operating_point),
                                                           .hooks = std::move(hooks)});
}

}  // namespace

AdminServer::AdminServer(const CommandLine& line, const RankProcess& process, MetricsRegistry& metrics)
    : patience_(process.config().frontend.stall_timeout),
      server_(admin_frontend_config(line.admin_port), make_admin_endpoints(context_of(line, process, hooks())), metrics),
      thread_([this] { server_.run(); }) {}

AdminServer::~AdminServer() {
  server_.stop();
  thread_.join();
}

AdminHooks AdminServer::hooks() {
  return {.report = [this] { return report(); },
          .set_level = [this](int64_t level) { return report_when_in_force(engine().set_level(level)); },
          .append = [this](OperatingPoint point) { return report_when_in_force(engine().append_level(std::move(point))); }};
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

OperatingReport AdminServer::report_when_in_force(uint64_t change) const {
  if (!engine().operating_levels().wait_until_in_force(change, patience_)) {
    throw Cancelled("no step has applied the change within " + std::to_string(patience_.count()) +
                    " ms, or the server is stopping; GET tells what is in force");
  }
  return report();
}

}  // namespace skipper
