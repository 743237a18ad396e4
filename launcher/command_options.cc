#include "launcher/command_options.h"

#include <algorithm>

namespace skipper {
namespace {

constexpr int64_t kBytesPerMegabyte = 1'000'000;
constexpr int64_t kDefaultReferenceMegabytes = 2000;

// Its answers would be taken for the model's. `eval` counts bytes with it, and says so in its report.
void refuse_withheld_payload(const CommandLine& line, const DispatchConfig& dispatch) {
  if (dispatch.rows_travel() || line.command == "eval") return;
  throw InvalidFile(line.config + ": dispatch.payload is off, so no row reaches another rank and results mean nothing; only " +
                    "'skipper eval' takes it, to measure bytes; leave it out");
}

}  // namespace

ServerConfig server_config_from(const CommandLine& line) {
  ServerConfig config = load_server_config(line.config);
  refuse_withheld_payload(line, config.dispatch);
  if (!line.host.empty()) config.frontend.host = line.host;
  if (line.port >= 0) config.frontend.port = line.port;
  if (line.max_model_len >= 0) config.engine.max_model_len = line.max_model_len;
  if (!line.experts.empty()) config.weights.experts = parse_weight_format(line.experts, "flag --experts");
  if (!line.dense.empty()) config.weights.dense = parse_weight_format(line.dense, "flag --dense");
  if (line.threads >= 0) config.cpu.threads = line.threads;
  return config;
}

ServerConfig scoring_config_from(const CommandLine& line) {
  ServerConfig config = server_config_from(line);
  config.engine.max_logit_rows = std::max(config.engine.max_logit_rows, config.engine.max_tokens_per_step);
  return config;
}

RankOptions rank_options_from(const CommandLine& line) {
  RankOptions options;
  options.model = line.model;
  options.operating_point = line.operating_point;
  options.level = line.level;
  options.plan = line.plan;
  options.disk = line.disk;
  options.policies = parse_policies(line.policies);
  options.first_policy = place_of_policy(options.policies, line.policy, "flag --policy");
  if (!options.policies.empty()) options.plan = options.policies[options.first_policy].plan;
  if (line.command != "plan") options.budgets = budget_options_from(line);
  options.tenant = {line.tenant, line.tenants};
  // The others compute with what only the CPU has: observers, rules over whole batches.
  if (line.command == "serve" || line.command == "eval") options.device = parse_device_choice(line.device);
  if (line.command != "serve") options.plan_use = PlanUse::kScoring;
  options.switches_layers_off = line.command == "serve";
  options.guards_experts = line.command == "serve";
  // Somebody may post other budgets: an operator, or the tenants of the host by coming and going.
  const bool is_replanned = line.admin_port >= 0 || !line.tenant.empty();
  if (line.command == "serve") options.switches = is_replanned ? SwitchUse::kAll : SwitchUse::kPolicies;
  options.fits_model_len = line.max_model_len < 0;
  options.audit.file = line.audit_file;
  if (line.audit_rate >= 0.0) options.audit.rate = line.audit_rate;
  if (line.audit_max_bytes >= 0) options.audit.max_bytes = line.audit_max_bytes;
  return options;
}

int64_t reference_bytes_from(const CommandLine& line) {
  return (line.reference_memory < 0 ? kDefaultReferenceMegabytes : line.reference_memory) * kBytesPerMegabyte;
}

}  // namespace skipper
