#include "launcher/commands/cache_replay_command.h"

#include <algorithm>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "audit/audit_reader.h"
#include "base/error.h"
#include "launcher/recorded_routes.h"
#include "launcher/route_replay.h"
#include "model/model_config.h"
#include "residency/expert_record.h"

namespace skipper {
namespace {

// As it lies on disk; 0 without a model.
size_t expert_bytes(const CommandLine& line, const AuditHeader& header) {
  if (line.model.empty()) return 0;
  const ModelConfig model = load_model_config(line.model);
  if (model.fingerprint != header.model_fingerprint) {
    throw InvalidFile(line.audit + ": recorded with model " + header.model_fingerprint + " but " + line.model + " is model " +
                      model.fingerprint + "; give the one that was recorded");
  }
  const WeightFormat format = line.experts.empty() ? WeightFormat() : parse_weight_format(line.experts, "flag --experts");
  return record_bytes(format, {.hidden_size = model.hidden_size, .intermediate_size = model.moe.intermediate_size});
}

bool has_generated_tokens(const std::string& audit) {
  AuditReader reader(audit);
  while (const std::optional<AuditEntry> entry = reader.next()) {
    const auto* record = std::get_if<RoutingRecord>(&*entry);
    if (record != nullptr && record->phase == TokenPhase::kGenerated) return true;
  }
  return false;
}

RouteForecast forecast_of(const CommandLine& line, RoutesOf whose, const CacheSizes& sizes) {
  AuditReader reader(line.audit);
  const RouteTrace trace = read_routes(reader, whose);
  if (reader.last_line_was_cut_off()) std::cout << "note: the last line of " << line.audit << " was cut off and is left out\n";
  return forecast(trace, sizes);
}

}  // namespace

int run_cache_replay(const CommandLine& line) {
  const AuditReader reader(line.audit);
  const CacheSizes sizes = parse_cache_sizes(line.cache, expert_bytes(line, reader.header()));
  std::ofstream json_file;
  if (!line.json.empty()) {
    json_file.open(line.json);
    if (!json_file) throw Error(line.json + ": cannot be written; check the folder and its permissions");
  }
  nlohmann::json results;
  const RouteForecast all = forecast_of(line, RoutesOf::kAllTokens, sizes);
  std::cout << "all tokens: " << to_table(all);
  results["all_tokens"] = nlohmann::json::parse(to_json(all));
  if (has_generated_tokens(line.audit)) {
    const RouteForecast generated = forecast_of(line, RoutesOf::kGeneratedTokens, sizes);
    std::cout << "generated tokens alone: " << to_table(generated);
    results["generated_tokens"] = nlohmann::json::parse(to_json(generated));
  }
  if (line.json.empty()) return 0;
  json_file << results.dump(1) << "\n" << std::flush;
  if (!json_file) throw Error(line.json + ": could not be written to its end; check the space on its disk");
  return 0;
}

}  // namespace skipper
