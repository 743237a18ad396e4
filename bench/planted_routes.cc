#include "bench/planted_routes.h"

#include <algorithm>
#include <map>
#include <string>
#include <variant>

#include "audit/audit_reader.h"
#include "base/error.h"

namespace skipper {
namespace {

// Where an answer runs in the larger model.
struct Place {
  const RouteTrace& answer;
  int first_layer = 0;
  int32_t first_expert = 0;
};

void add_experts(const Place& place, int64_t step, int layer, std::vector<int32_t>& experts) {
  const int depth = place.answer.counts.num_layers;
  const auto set = static_cast<size_t>(step * depth + layer - place.first_layer);
  for (const int32_t expert : place.answer.sets[set].experts) experts.push_back(place.first_expert + expert);
}

void require_enough(size_t num_answers, size_t num_places, int64_t num_steps) {
  if (num_answers >= num_places) return;
  throw Error("routes of " + std::to_string(num_answers) + " answers of " + std::to_string(num_steps) + " tokens or more, but " +
              std::to_string(num_places) + " are planted; record more or longer ones");
}

}  // namespace

std::vector<RouteTrace> recorded_answers(const std::filesystem::path& audit, int64_t num_tokens) {
  AuditReader reader(audit);
  const ExpertCounts counts{.num_layers = reader.header().num_moe_layers, .num_experts = reader.header().num_experts};
  std::map<uint64_t, RouteTrace> by_request;
  while (const std::optional<AuditEntry> entry = reader.next()) {
    const auto* record = std::get_if<RoutingRecord>(&*entry);
    if (record == nullptr || record->phase != TokenPhase::kGenerated) continue;
    RouteTrace& answer = by_request.try_emplace(record->request, RouteTrace{counts, {}}).first->second;
    const auto expected = static_cast<int>(answer.sets.size()) % counts.num_layers;
    if (record->moe_layer != expected) {
      throw InvalidFile(reader.where() + ": MoE layer " + std::to_string(record->moe_layer) + " of request " +
                        std::to_string(record->request) + " comes where layer " + std::to_string(expected) +
                        " was due; record with --audit_rate 1 and room for all lines");
    }
    answer.sets.push_back({record->moe_layer, record->experts});
  }
  std::vector<RouteTrace> answers;
  for (auto& [request, answer] : by_request) {
    if (static_cast<int64_t>(answer.sets.size()) >= num_tokens * counts.num_layers) answers.push_back(std::move(answer));
  }
  return answers;
}

RouteTrace plant_routes(const std::vector<RouteTrace>& answers, const ExpertCounts& counts, int64_t num_steps) {
  require_enough(answers.size(), 1, num_steps);
  const ExpertCounts& recorded = answers.front().counts;
  if (counts.num_experts % recorded.num_experts != 0) {
    throw Error(std::to_string(counts.num_experts) + " experts do not divide into groups of the recorded " +
                std::to_string(recorded.num_experts) + "; record on another model");
  }
  const int num_groups = counts.num_experts / recorded.num_experts;
  const int num_blocks = (counts.num_layers + recorded.num_layers - 1) / recorded.num_layers;
  require_enough(answers.size(), static_cast<size_t>(num_groups * num_blocks), num_steps);
  RouteTrace planted{counts, {}};
  for (int64_t step = 0; step < num_steps; ++step) {
    for (int layer = 0; layer < counts.num_layers; ++layer) {
      RouteSet& set = planted.sets.emplace_back(RouteSet{layer, {}});
      const int block = layer / recorded.num_layers;
      for (int group = 0; group < num_groups; ++group) {
        add_experts({.answer = answers[static_cast<size_t>(block * num_groups + group)],
                     .first_layer = block * recorded.num_layers,
                     .first_expert = group * recorded.num_experts},
                    step, layer, set.experts);
      }
      std::ranges::sort(set.experts);
    }
  }
  return planted;
}

}  // namespace skipper
