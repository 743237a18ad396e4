#include "launcher/recorded_routes.h"

#include <algorithm>
#include <variant>

#include "base/error.h"

namespace skipper {
namespace {

void add_experts(const RoutingRecord& record, RouteSet& set) {
  for (size_t slot = 0; slot < record.experts.size(); ++slot) {
    const int32_t expert = record.experts[slot];
    if (record.kept[slot] && std::ranges::find(set.experts, expert) == set.experts.end()) set.experts.push_back(expert);
  }
}

}  // namespace

RouteTrace read_routes(AuditReader& reader, RoutesOf whose) {
  const AuditHeader& header = reader.header();
  const std::string first_line = reader.where();
  if (header.num_moe_layers < 2) {
    throw InvalidFile(first_line + ": a model with " + std::to_string(header.num_moe_layers) +
                      " MoE layer, whose steps the file does not tell apart; routes take two layers or more");
  }
  RouteTrace trace{{.num_layers = header.num_moe_layers, .num_experts = header.num_experts}, {}};
  while (const std::optional<AuditEntry> entry = reader.next()) {
    const auto* record = std::get_if<RoutingRecord>(&*entry);
    if (record == nullptr) continue;
    if (whose == RoutesOf::kGeneratedTokens && record->phase != TokenPhase::kGenerated) continue;
    if (trace.sets.empty() || trace.sets.back().layer != record->moe_layer) trace.sets.push_back({record->moe_layer, {}});
    add_experts(*record, trace.sets.back());
  }
  for (RouteSet& set : trace.sets) std::ranges::sort(set.experts);
  if (!trace.sets.empty()) return trace;
  throw InvalidFile(first_line + ": no routes of " + (whose == RoutesOf::kAllTokens ? "any" : "generated") +
                    " tokens follow; record some with --audit_file FILE --audit_rate 1");
}

}  // namespace skipper
