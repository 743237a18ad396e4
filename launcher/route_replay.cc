#include "launcher/route_replay.h"

#include <algorithm>
#include <charconv>
#include <iomanip>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "planning/memory_size.h"

namespace skipper {
namespace {

using nlohmann::json;

constexpr EvictionRule kRules[kNumEvictionRules] = {EvictionRule::kLeastRecent, EvictionRule::kLeastFrequent,
                                                    EvictionRule::kLayerDistance};
constexpr int kAhead[CacheForecast::kNumOracles] = {1, 2, 4, std::numeric_limits<int>::max()};
constexpr const char* kAheadNames[CacheForecast::kNumOracles] = {"1", "2", "4", "all"};
constexpr int64_t kMostExperts = 1 << 24;
constexpr int kColumn = 12;

bool is_count(const std::string& text) {
  return !text.empty() && std::ranges::all_of(text, [](char letter) { return '0' <= letter && letter <= '9'; });
}

int parse_cache_size(const std::string& text, size_t expert_bytes) {
  int64_t count = 0;
  if (is_count(text)) {
    const auto end = std::from_chars(text.data(), text.data() + text.size(), count);
    if (end.ec != std::errc()) count = kMostExperts + 1;
  } else {
    size_t num_bytes = 0;
    try {
      num_bytes = parse_memory_size(text, "flag --cache");
    } catch (const InvalidRequest& error) {
      throw UsageError(std::string(error.what()) + ", or a number of experts");
    }
    if (expert_bytes == 0) {
      throw UsageError("flag --cache: '" + text + "' is in bytes; give --model DIR, which says how large an expert is, or a " +
                       "number of experts");
    }
    count = static_cast<int64_t>(num_bytes / expert_bytes);
    if (count == 0) {
      throw UsageError("flag --cache: '" + text + "' holds no expert, of which one takes " + std::to_string(expert_bytes) +
                       " bytes");
    }
  }
  if (count >= 1 && count <= kMostExperts) return static_cast<int>(count);
  throw UsageError("flag --cache: '" + text + "' is out of range; expected 1 to " + std::to_string(kMostExperts) + " experts");
}

void print_rate(std::ostringstream& out, const ReplayResult& result) { out << std::setw(kColumn) << 100.0 * result.hit_rate(); }

void print_titles(std::ostringstream& out) {
  out << std::left << std::setw(26) << "hits, %" << std::right;
  for (const EvictionRule rule : kRules) out << std::setw(kColumn) << name_of(rule);
  out << std::setw(kColumn) << "Belady";
  for (const char* name : kAheadNames) out << std::setw(kColumn) << std::string("oracle ") + name;
  out << "\n";
}

void print_cache(std::ostringstream& out, const RouteForecast& forecast, const CacheForecast& cache) {
  std::string title = std::to_string(cache.num_experts) + " experts";
  if (forecast.expert_bytes > 0) {
    title += ", " + memory_text(static_cast<size_t>(cache.num_experts) * forecast.expert_bytes);
  }
  out << std::left << std::setw(26) << title << std::right;
  for (const ReplayResult& rule : cache.rules) print_rate(out, rule);
  print_rate(out, cache.optimum);
  for (const ReplayResult& oracle : cache.oracles) print_rate(out, oracle);
  out << "\n";
}

json rates_of(const CacheForecast& cache) {
  json rates = {{"belady", cache.optimum.hit_rate()}};
  for (size_t i = 0; i < kNumEvictionRules; ++i) rates[std::string(name_of(kRules[i]))] = cache.rules[i].hit_rate();
  return rates;
}

json oracles_of(const CacheForecast& cache) {
  json rates = json::object();
  for (size_t i = 0; i < CacheForecast::kNumOracles; ++i) rates[kAheadNames[i]] = cache.oracles[i].hit_rate();
  return rates;
}

}  // namespace

CacheSizes parse_cache_sizes(const std::string& text, size_t expert_bytes) {
  CacheSizes sizes{.num_experts = {}, .expert_bytes = expert_bytes};
  std::istringstream parts(text + ",");
  for (std::string part; std::getline(parts, part, ',');) sizes.num_experts.push_back(parse_cache_size(part, expert_bytes));
  return sizes;
}

RouteForecast forecast(const RouteTrace& trace, const CacheSizes& sizes) {
  RouteForecast result{.counts = trace.counts,
                       .num_runs = static_cast<int64_t>(trace.sets.size()),
                       .num_needs = trace.num_needs(),
                       .expert_bytes = sizes.expert_bytes,
                       .law = law_of(trace),
                       .table = replay_transitions(trace),
                       .caches = {}};
  for (const int num_experts : sizes.num_experts) {
    CacheForecast& cache = result.caches.emplace_back();
    cache.num_experts = num_experts;
    for (size_t i = 0; i < kNumEvictionRules; ++i) cache.rules[i] = replay_rule(trace, num_experts, kRules[i]);
    cache.optimum = replay_optimum(trace, num_experts);
    for (size_t i = 0; i < CacheForecast::kNumOracles; ++i) {
      cache.oracles[i] = replay_oracle(trace, num_experts, EvictionRule::kLayerDistance, kAhead[i]);
    }
  }
  return result;
}

std::string to_table(const RouteForecast& forecast) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(1);
  const double per_run = static_cast<double>(forecast.num_needs) / static_cast<double>(std::max<int64_t>(forecast.num_runs, 1));
  out << forecast.counts.num_layers << " MoE layers of " << forecast.counts.num_experts << " experts; " << forecast.num_runs
      << " runs of a layer with " << per_run << " experts each\n"
      << std::setprecision(2) << "skew " << forecast.law.skew << ", " << std::setprecision(1) << 100.0 * forecast.law.repeat
      << " % as the step before, " << 100.0 * forecast.law.follow << " % of the others, and " << 100.0 * forecast.table.recall()
      << " % of all, named by the table of two layers before\n";
  print_titles(out);
  for (const CacheForecast& cache : forecast.caches) print_cache(out, forecast, cache);
  out << "Belady: no cache of this size hits more often. oracle N: edge, and while a layer runs the next one is known; in that "
         "time N experts are read\n";
  return out.str();
}

std::string to_json(const RouteForecast& forecast) {
  json root = {{"moe_layers", forecast.counts.num_layers},
               {"experts", forecast.counts.num_experts},
               {"layer_runs", forecast.num_runs},
               {"needs", forecast.num_needs},
               {"expert_bytes", nullptr},
               {"law", {{"skew", forecast.law.skew}, {"repeat", forecast.law.repeat}, {"follow", forecast.law.follow}}},
               {"table_recall", forecast.table.recall()},
               {"caches", json::array()}};
  if (forecast.expert_bytes > 0) root["expert_bytes"] = forecast.expert_bytes;
  for (const CacheForecast& cache : forecast.caches) {
    root["caches"].push_back({{"experts", cache.num_experts}, {"hit_rate", rates_of(cache)}, {"oracle", oracles_of(cache)}});
  }
  return root.dump(1);
}

}  // namespace skipper
