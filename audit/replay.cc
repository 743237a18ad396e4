#include "audit/replay.h"

#include <algorithm>
#include <span>
#include <string_view>

#include "audit/destinations.h"
#include "audit/logged_placement.h"
#include "audit/pair_scores.h"
#include "audit/token_decision.h"
#include "base/error.h"
#include "expert_parallel/routing.h"

namespace skipper {

namespace {

// The file's own, or equal blocks without shadows over another number of ranks.
ExpertPlacement placement_over(const AuditHeader& header, int num_ranks) {
  if (num_ranks == header.world_size()) return placement_of(header);
  return ExpertPlacement::contiguous(
      {.num_moe_layers = header.num_moe_layers, .num_experts = header.num_experts, .world_size = num_ranks});
}

// What was decided of a slot.
enum class Decision : uint8_t { kSkipped, kKept, kShadow };
constexpr std::array<std::string_view, 3> kDecisionNames = {"skipped", "kept", "on a shadow"};

Decision logged_decision(const RoutingRecord& record, size_t slot) {
  if (!record.kept[slot]) return Decision::kSkipped;
  return !record.on_shadow.empty() && record.on_shadow[slot] ? Decision::kShadow : Decision::kKept;
}

Decision decision_of(int32_t id, int num_experts) {
  if (id == kNoExpert) return Decision::kSkipped;
  return id < num_experts ? Decision::kKept : Decision::kShadow;
}

int64_t count_skipped(std::span<const int32_t> experts) { return std::count(experts.begin(), experts.end(), kNoExpert); }

int64_t count_on_shadows(const RoutingRecord& record) {
  return std::count(record.on_shadow.begin(), record.on_shadow.end(), true);
}

std::vector<int32_t> logged_experts(const RoutingRecord& record) {
  std::vector<int32_t> experts = record.experts;
  for (size_t j = 0; j < experts.size(); ++j) {
    if (!record.kept[j]) experts[j] = kNoExpert;
  }
  return experts;
}

// Those for which a row travels, unless the own rank has them: pairs on shadows stay where they are.
std::vector<int32_t> without_shadows(std::vector<int32_t> experts, const RoutingRecord& record) {
  for (size_t j = 0; j < record.on_shadow.size(); ++j) {
    if (record.on_shadow[j]) experts[j] = kNoExpert;
  }
  return experts;
}

bool has_same_scores(const RoutingRecord& record, const OperatingPoint& point) {
  const PairScores scores =
      pair_scores(point, {.kind = kind_of(record), .experts = record.experts, .weights = record.weights});
  return scores.threshold == record.threshold && scores.scores == record.scores;
}

std::string difference_of_pairs(const RoutingRecord& record, std::span<const int32_t> again, int num_experts) {
  for (size_t j = 0; j < again.size(); ++j) {
    const Decision logged = logged_decision(record, j), decided = decision_of(again[j], num_experts);
    if (logged == decided) continue;
    return "expert " + std::to_string(record.experts[j]) + " was logged as " +
           std::string(kDecisionNames[static_cast<size_t>(logged)]) + " but is " +
           std::string(kDecisionNames[static_cast<size_t>(decided)]);
  }
  return "";
}

// Empty: none.
std::string difference(const RoutingRecord& record, std::span<const int32_t> again, const TokenPlace& place) {
  std::string of_pairs = difference_of_pairs(record, again, place.placement.num_experts());
  if (!of_pairs.empty()) return of_pairs;
  const std::span<const ExpertHome> homes = place.placement.homes_seen_from(place.rank, record.moe_layer);
  if (destinations_of(again, homes) != record.destinations) return "its destinations are not the owners of the experts kept";
  return "";
}

std::string describe_token(const RoutingRecord& record) {
  return "request " + std::to_string(record.request) + ", position " + std::to_string(record.position) + ", layer " +
         std::to_string(record.layer);
}

// Level tables come before the decisions that they apply to.
class TableInForce {
 public:
  void replace(LevelTable levels) { levels_ = std::move(levels); }

  const LevelTable& levels_for(const RoutingRecord& record, const std::string& where) const {
    if (!levels_) throw InvalidFile(where + ": no level table comes before it; the file was changed or damaged");
    if (record.level < levels_->num_levels()) return *levels_;
    throw InvalidFile(where + ": level " + std::to_string(record.level) + " is not in the table before it, which has 0 to " +
                      std::to_string(levels_->num_levels() - 1));
  }

 private:
  std::optional<LevelTable> levels_;
};

}  // namespace

ReplayReport replay(AuditReader& reader) {
  const AuditHeader& header = reader.header();
  const ExpertPlacement placement = placement_of(header);
  const ClusterTopology topology(header.node_of_rank);
  const TokenPlace place{placement, topology, header.rank};
  ReplayReport report;
  TableInForce table;
  while (std::optional<AuditEntry> entry = reader.next()) {
    if (auto* levels = std::get_if<LevelTable>(&*entry)) {
      table.replace(std::move(*levels));
      continue;
    }
    const RoutingRecord& record = std::get<RoutingRecord>(*entry);
    const LevelTable& levels = table.levels_for(record, reader.where());
    const OperatingPoint& point = levels.levels[record.level];
    ++report.num_decisions;
    report.num_pairs += static_cast<int64_t>(record.experts.size());
    report.num_skipped += count_skipped(logged_experts(record));
    report.num_on_shadows += count_on_shadows(record);
    if (point.depends_on_batch()) {
      ++report.num_of_batch;
      continue;
    }
    std::string found = difference(record, decide_again(record, levels, place), place);
    if (found.empty() && !has_same_scores(record, point)) found = "its scores or its threshold are not those of its level";
    if (found.empty()) continue;
    if (report.num_different++ == 0) report.first_difference = reader.where() + ": " + describe_token(record) + ": " + found;
  }
  return report;
}

namespace {

// The world of a what-if: the file's own, or one with other ranks.
class OtherWorld {
 public:
  OtherWorld(const AuditHeader& header, int num_ranks)
      : is_the_files_(num_ranks == header.world_size()),
        rank_(header.rank),
        placement_(placement_over(header, num_ranks)),
        topology_(is_the_files_ ? header.node_of_rank : one_node_each(num_ranks)) {}

  TokenPlace place_of(const RoutingRecord& record) const {
    const auto in_turn = static_cast<int>(record.request % static_cast<uint64_t>(placement_.world_size()));
    return {placement_, topology_, is_the_files_ ? rank_ : in_turn};
  }

 private:
  static std::vector<int> one_node_each(int num_ranks) {
    std::vector<int> nodes;
    for (int rank = 0; rank < num_ranks; ++rank) nodes.push_back(rank);
    return nodes;
  }

  bool is_the_files_;
  int rank_;
  ExpertPlacement placement_;
  ClusterTopology topology_;
};

using RowsByHop = std::array<WhatIfReport::Rows, kNumHops>;

void count_rows(std::span<const int32_t> experts, const RoutingRecord& record, const TokenPlace& place,
                int64_t WhatIfReport::Rows::*column, RowsByHop& rows) {
  for (const int32_t rank : destinations_of(experts, place.placement.homes_seen_from(place.rank, record.moe_layer))) {
    if (rank != place.rank) ++(rows[static_cast<size_t>(place.topology.hop(place.rank, rank))].*column);
  }
}

void add_record(const RoutingRecord& record, const OtherPoint& other, const TokenPlace& place, WhatIfReport& report) {
  RoutingRecord under_other = record;
  under_other.level = other.level;
  const std::vector<int32_t> logged = logged_experts(record);
  const std::vector<int32_t> otherwise = decide_again(under_other, other.levels, place);
  WhatIfReport::Pairs& pairs = report.pairs[static_cast<size_t>(record.token_class)];
  pairs.routed += static_cast<int64_t>(record.experts.size());
  pairs.skipped_as_logged += count_skipped(logged);
  pairs.skipped_otherwise += count_skipped(otherwise);
  pairs.on_shadows_as_logged += count_on_shadows(record);
  pairs.on_shadows_otherwise +=
      std::ranges::count_if(otherwise, [&](int32_t id) { return id >= place.placement.num_experts(); });
  count_rows(record.experts, record, place, &WhatIfReport::Rows::routed, report.rows);
  count_rows(without_shadows(logged, record), record, place, &WhatIfReport::Rows::as_logged, report.rows);
  count_rows(otherwise, record, place, &WhatIfReport::Rows::otherwise, report.rows);
}

}  // namespace

WhatIfReport decide_otherwise(AuditReader& reader, const OtherPoint& other) {
  if (other.levels.levels[other.level].depends_on_batch()) {
    throw InvalidRequest("level " + std::to_string(other.level) +
                             " decides for a whole batch (rank_capacity or decode_*), which no logged token tells; "
                             "measure it with skipper eval instead",
                         "operating_point");
  }
  const AuditHeader& header = reader.header();
  const OtherWorld world(header, other.num_ranks.value_or(header.world_size()));
  WhatIfReport report;
  while (const std::optional<AuditEntry> entry = reader.next()) {
    const auto* record = std::get_if<RoutingRecord>(&*entry);
    if (record) add_record(*record, other, world.place_of(*record), report);
  }
  return report;
}

}  // namespace skipper
