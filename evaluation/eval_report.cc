#include "evaluation/eval_report.h"

#include <array>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

namespace skipper {
namespace {

using nlohmann::json;

constexpr std::array<const char*, kNumSampleKinds> kKindNames = {"texts", "questions", "visual_questions"};

int64_t sum_over_classes(const std::array<TrafficCounters::ByHopAndClass<int64_t>, kNumDirections>& bytes, size_t hop) {
  int64_t total = 0;
  for (const auto& direction : bytes) {
    for (const int64_t value : direction[hop]) total += value;
  }
  return total;
}

double skip_ratio(const TrafficCounters& traffic) {
  int64_t run = 0;
  int64_t skipped = 0;
  for (const TokenClass c : {TokenClass::kText, TokenClass::kVision}) {
    run += traffic.pairs_run[static_cast<size_t>(c)];
    skipped += traffic.pairs_skipped[static_cast<size_t>(c)];
  }
  return run + skipped == 0 ? 0.0 : static_cast<double>(skipped) / static_cast<double>(run + skipped);
}

json skip_section(const EvalReport& report) {
  json section = {{"level", report.level}, {"skip_ratio", skip_ratio(report.traffic)}};
  for (size_t c = 0; c < kNumTokenClasses; ++c) {
    section["pairs"][std::string(kTokenClassNames[c])] = {{"run", report.traffic.pairs_run[c]},
                                                          {"skipped", report.traffic.pairs_skipped[c]}};
  }
  for (size_t hop = 0; hop < kNumHops; ++hop) {
    section["payload_bytes"][std::string(kHopNames[hop])] = {{"sent", sum_over_classes(report.traffic.payload_bytes, hop)},
                                                             {"saved", sum_over_classes(report.traffic.saved_bytes, hop)}};
    int64_t wire = 0;
    for (const auto& direction : report.traffic.wire_bytes) wire += direction[hop];
    section["wire_bytes"][std::string(kHopNames[hop])] = wire;
  }
  return section;
}

json distance_section(const DistanceReport& report) {
  json section = json::object();
  for (size_t kind = 0; kind < kNumSampleKinds; ++kind) {
    const KindDistance& distance = report[kind];
    section[kKindNames[kind]] = {{"samples", distance.samples},
                                 {"tokens", distance.tokens},
                                 {"kl", distance.mean_kl},
                                 {"kl_interval", {distance.kl_interval.low, distance.kl_interval.high}},
                                 {"flips", distance.flip_ratio}};
  }
  return section;
}

const char* foresight_state(const ForesightReport& foresight) {
  if (!foresight.has_rule) return "none";
  return foresight.is_on ? "on" : "off";
}

json disk_section(const std::vector<DiskReading>& disks) {
  json section = json::array();
  for (size_t rank = 0; rank < disks.size(); ++rank) {
    const DiskReading& disk = disks[rank];
    const CacheCounters& cache = disk.cache;
    const json needs = {
        {"memory", disk.num_in_memory}, {"hit", cache.num_hits}, {"late", cache.num_late}, {"miss", cache.num_misses}};
    section.push_back(
        {{"rank", rank},
         {"needs", needs},
         {"bytes", cache.num_bytes},
         {"busy_seconds", cache.busy_seconds},
         {"exposed_seconds", cache.exposed_seconds},
         {"foreseen", {{"read", cache.num_foreseen}, {"used", cache.num_used}, {"wasted", cache.num_wasted}}},
         {"foresight", foresight_state(disk.foresight)},
         {"times_turned_off", disk.foresight.num_times_off},
         {"cache_experts", disk.num_frames}});
  }
  return section;
}

void print_disks(std::ostringstream& out, const std::vector<DiskReading>& disks) {
  constexpr double kMegabyte = 1e6;
  out << std::left << std::setw(20) << "experts on disk" << std::right;
  for (const char* title : {"in memory", "hits", "late", "misses", "MB read", "waited s", "foreseen", "used", "wasted"}) {
    out << std::setw(11) << title;
  }
  out << "  foresight\n";
  for (size_t rank = 0; rank < disks.size(); ++rank) {
    const CacheCounters& cache = disks[rank].cache;
    out << "  " << std::left << std::setw(18) << "rank " + std::to_string(rank) << std::right << std::setw(11)
        << disks[rank].num_in_memory << std::setw(11) << cache.num_hits << std::setw(11) << cache.num_late << std::setw(11)
        << cache.num_misses << std::setprecision(1) << std::setw(11) << static_cast<double>(cache.num_bytes) / kMegabyte
        << std::setprecision(3) << std::setw(11) << cache.exposed_seconds << std::setw(11) << cache.num_foreseen << std::setw(11)
        << cache.num_used << std::setw(11) << cache.num_wasted << "  " << foresight_state(disks[rank].foresight) << "\n";
  }
}

constexpr const char* kMeaningless =
    "dispatch.payload is off: no row reached another rank; perplexities, answers and distances mean nothing";

json task_section(const std::map<std::string, TaskScore>& scores) {
  json section = json::object();
  for (const auto& [task, score] : scores) section[task] = {{"right", score.right}, {"total", score.total}};
  return section;
}

void print_tasks(std::ostringstream& out, const char* title, const std::map<std::string, TaskScore>& scores) {
  if (scores.empty()) return;
  out << std::left << std::setw(20) << title << std::right << std::setw(12) << "right" << std::setw(10) << "total" << "\n";
  for (const auto& [task, score] : scores) {
    out << "  " << std::left << std::setw(18) << task << std::right << std::setw(12) << score.right << std::setw(10)
        << score.total << "\n";
  }
}

void print_distance(std::ostringstream& out, const DistanceReport& report) {
  out << std::left << std::setw(20) << "from level 0" << std::right << std::setw(12) << "KL, nats" << std::setw(24) << "95 %"
      << std::setw(10) << "flips %" << std::setw(10) << "tokens" << "\n";
  for (size_t kind = 0; kind < kNumSampleKinds; ++kind) {
    const KindDistance& distance = report[kind];
    if (distance.tokens == 0) continue;
    out << "  " << std::left << std::setw(18) << kKindNames[kind] << std::right << std::setprecision(5) << std::setw(12)
        << distance.mean_kl << std::setw(12) << distance.kl_interval.low << std::setw(12) << distance.kl_interval.high
        << std::setprecision(2) << std::setw(10) << 100.0 * distance.flip_ratio << std::setw(10) << distance.tokens << "\n";
  }
}

}  // namespace

std::string to_json(const EvalReport& report) {
  json root;
  root["perplexity"] = json::object();
  for (const auto& [name, result] : report.perplexity) {
    root["perplexity"][name] = {{"perplexity", result.perplexity}, {"tokens", result.tokens}};
  }
  root["vqa"] = task_section(report.vqa);
  root["chat"] = task_section(report.chat);
  root["skip"] = skip_section(report);
  if (report.distance) root["distance"] = distance_section(*report.distance);
  if (!report.disks.empty()) root["disk"] = disk_section(report.disks);
  if (!report.rows_travelled) root["meaningless"] = kMeaningless;
  return root.dump(1);
}

std::string to_table(const EvalReport& report) {
  std::ostringstream out;
  if (!report.rows_travelled) out << kMeaningless << "\n";
  if (!report.perplexity.empty()) {
    out << std::left << std::setw(20) << "text" << std::right << std::setw(12) << "perplexity" << std::setw(10) << "tokens"
        << "\n";
  }
  for (const auto& [name, result] : report.perplexity) {
    out << "  " << std::left << std::setw(18) << name << std::right << std::setw(12) << std::fixed << std::setprecision(4)
        << result.perplexity << std::setw(10) << result.tokens << "\n";
  }
  print_tasks(out, "visual questions", report.vqa);
  print_tasks(out, "chat questions", report.chat);
  out << std::fixed;
  if (report.distance) print_distance(out, *report.distance);
  if (!report.disks.empty()) print_disks(out, report.disks);
  out << "level " << report.level << ": " << std::setprecision(1) << std::fixed << 100.0 * skip_ratio(report.traffic)
      << " % of text and vision pairs skipped; payload between ranks " << report.traffic.total_payload_bytes(Hop::kNode)
      << " bytes on a node, " << report.traffic.total_payload_bytes(Hop::kNetwork) << " over the network\n";
  return out.str();
}

}  // namespace skipper
