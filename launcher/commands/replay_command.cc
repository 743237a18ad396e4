#include "launcher/commands/replay_command.h"

#include <iomanip>
#include <iostream>

#include "audit/audit_reader.h"
#include "audit/replay.h"
#include "base/error.h"
#include "cluster/cluster_topology.h"
#include "launcher/commands/cache_replay_command.h"
#include "launcher/error_line.h"

namespace skipper {
namespace {

constexpr int kExitDifferent = 1;

std::string percent(int64_t part, int64_t whole) {
  std::ostringstream text;
  const double share = whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
  text << std::fixed << std::setprecision(1) << 100.0 * share << " %";
  return text.str();
}

void print_cut_off(const AuditReader& reader, const CommandLine& line) {
  if (reader.last_line_was_cut_off()) std::cout << "note: the last line of " << line.audit << " was cut off and is left out\n";
}

int check_log(AuditReader& reader, const CommandLine& line) {
  const ReplayReport report = replay(reader);
  std::cout << "decisions " << report.num_decisions << ", pairs " << report.num_pairs << ", skipped " << report.num_skipped
            << " (" << percent(report.num_skipped, report.num_pairs) << "), ";
  if (!reader.header().shadow_errors.empty()) {
    std::cout << "on shadows " << report.num_on_shadows << " (" << percent(report.num_on_shadows, report.num_pairs) << "), ";
  }
  std::cout << "different " << report.num_different << "\n";
  if (report.num_of_batch > 0) {
    std::cout << "note: " << report.num_of_batch
              << " decisions were made for a whole batch (rank_capacity or decode_*) and cannot be replayed token by token\n";
  }
  print_cut_off(reader, line);
  if (report.num_different == 0) return 0;
  print_error(report.first_difference);
  return kExitDifferent;
}

struct ChosenLevel {
  LevelTable levels;
  uint8_t level = 0;
};

// Only the file's own ranks have what it says.
ShadowCopies shadows_of(const AuditHeader& header, int64_t num_ranks) {
  const bool is_the_files_world = num_ranks <= 0 || num_ranks == header.world_size();
  return is_the_files_world && !header.shadow_errors.empty() ? ShadowCopies::kSome : ShadowCopies::kNone;
}

ChosenLevel choose_level(const AuditHeader& header, const CommandLine& line) {
  ChosenLevel chosen;
  chosen.levels = load_levels(line.operating_point, {.fingerprint = header.model_fingerprint,
                                                     .num_moe_layers = header.num_moe_layers,
                                                     .num_experts = header.num_experts},
                              {.shadows = shadows_of(header, line.ranks)});
  const int highest = chosen.levels.num_levels() - 1;
  if (line.level > highest || (line.level < 0 && highest > 1)) {
    throw UsageError("flag --level: " + (line.level < 0 ? "is missing" : std::to_string(line.level) + " does not exist") + "; " +
                     line.operating_point + " has levels 0 to " + std::to_string(highest));
  }
  chosen.level = static_cast<uint8_t>(line.level < 0 ? highest : line.level);
  return chosen;
}

void print_pairs(const WhatIfReport& report) {
  std::cout << std::left << std::setw(12) << "pairs" << std::right << std::setw(12) << "routed" << std::setw(22)
            << "skipped as logged" << std::setw(22) << "skipped otherwise" << "\n";
  for (size_t c = 0; c < kNumTokenClasses; ++c) {
    const WhatIfReport::Pairs& pairs = report.pairs[c];
    const auto column = [&](int64_t skipped) { return std::to_string(skipped) + " (" + percent(skipped, pairs.routed) + ")"; };
    std::cout << std::left << std::setw(12) << kTokenClassNames[c] << std::right << std::setw(12) << pairs.routed << std::setw(22)
              << column(pairs.skipped_as_logged) << std::setw(22) << column(pairs.skipped_otherwise) << "\n";
  }
}

void print_shadows(const WhatIfReport& report) {
  std::cout << std::left << std::setw(12) << "on shadows" << std::right << std::setw(12) << "routed" << std::setw(22)
            << "as logged" << std::setw(22) << "otherwise" << "\n";
  for (size_t c = 0; c < kNumTokenClasses; ++c) {
    const WhatIfReport::Pairs& pairs = report.pairs[c];
    const auto column = [&](int64_t count) { return std::to_string(count) + " (" + percent(count, pairs.routed) + ")"; };
    std::cout << std::left << std::setw(12) << kTokenClassNames[c] << std::right << std::setw(12) << pairs.routed << std::setw(22)
              << column(pairs.on_shadows_as_logged) << std::setw(22) << column(pairs.on_shadows_otherwise) << "\n";
  }
}

void print_rows(const WhatIfReport& report, int64_t bytes_per_row) {
  std::cout << std::left << std::setw(12) << "rows to" << std::right << std::setw(12) << "routed" << std::setw(22)
            << "dropped as logged" << std::setw(22) << "dropped otherwise" << std::setw(26) << "bytes saved otherwise" << "\n";
  for (const Hop hop : {Hop::kNode, Hop::kNetwork}) {
    const WhatIfReport::Rows& rows = report.rows[static_cast<size_t>(hop)];
    const auto column = [&](int64_t count) { return std::to_string(count) + " (" + percent(count, rows.routed) + ")"; };
    std::cout << std::left << std::setw(12) << kHopNames[static_cast<size_t>(hop)] << std::right << std::setw(12) << rows.routed
              << std::setw(22) << column(rows.routed - rows.as_logged) << std::setw(22) << column(rows.routed - rows.otherwise)
              << std::setw(26) << (rows.routed - rows.otherwise) * bytes_per_row << "\n";
  }
}

int decide_otherwise(AuditReader& reader, const CommandLine& line) {
  const AuditHeader& header = reader.header();
  const ChosenLevel chosen = choose_level(header, line);
  OtherPoint other{.levels = chosen.levels, .level = chosen.level, .num_ranks = std::nullopt};
  if (line.ranks > 0) other.num_ranks = line.ranks;
  const WhatIfReport report = decide_otherwise(reader, other);
  const int num_ranks = other.num_ranks.value_or(header.world_size());
  std::cout << line.operating_point << " level " << int{chosen.level} << " on " << num_ranks << " ranks"
            << (num_ranks == header.world_size() ? "" : ", each on a host of its own, requests dealt out in turn") << "\n";
  print_pairs(report);
  if (!header.shadow_errors.empty()) print_shadows(report);
  print_rows(report, header.bytes_per_row);
  print_cut_off(reader, line);
  return 0;
}

}  // namespace

int run_replay(const CommandLine& line) {
  if (!line.cache.empty()) return run_cache_replay(line);
  AuditReader reader(line.audit);
  return line.operating_point.empty() ? check_log(reader, line) : decide_otherwise(reader, line);
}

}  // namespace skipper
