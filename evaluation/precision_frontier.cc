#include "evaluation/precision_frontier.h"

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace skipper {
namespace {

using ordered = nlohmann::ordered_json;

bool beats(const PrecisionPoint& one, const PrecisionPoint& other) {
  const bool is_no_worse = one.expert_bytes <= other.expert_bytes && one.measured.kl <= other.measured.kl &&
                           one.predicted.tokens_per_second >= other.predicted.tokens_per_second;
  return is_no_worse && (one.expert_bytes < other.expert_bytes || one.measured.kl < other.measured.kl ||
                         one.predicted.tokens_per_second > other.predicted.tokens_per_second);
}

ordered to_object(const PrecisionMeasurement& measured) {
  return {{"kl", measured.kl},
          {"perplexity", measured.perplexity > 0.0 ? ordered(measured.perplexity) : ordered(nullptr)},
          {"right", measured.right},
          {"questions", measured.questions},
          {"tokens_per_second", measured.tokens_per_second},
          {"joules_per_token", measured.joules_per_token ? ordered(*measured.joules_per_token) : ordered(nullptr)}};
}

ordered to_object(const PrecisionPoint& point, bool is_dominated) {
  return {{"source", point.source == PrecisionSource::kPlan ? "plan" : "uniform"},
          {"name", point.name},
          {"memory_bytes", point.memory_bytes},
          {"expert_bytes", point.expert_bytes},
          {"expert_bits", point.expert_bits},
          {"bytes_per_token", point.bytes_per_token},
          {"dominated", is_dominated},
          {"predicted", {{"loss", point.predicted.loss}, {"tokens_per_second", point.predicted.tokens_per_second}}},
          {"measured", to_object(point.measured)}};
}

std::string number_or_none(const char* format, double value, bool is_known) {
  if (!is_known) return "n/a";
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), format, value);
  return text.data();
}

}  // namespace

std::vector<bool> dominated(const std::vector<PrecisionPoint>& points) {
  std::vector<bool> result;
  for (const PrecisionPoint& point : points) {
    bool is_dominated = false;
    for (const PrecisionPoint& other : points) is_dominated = is_dominated || beats(other, point);
    result.push_back(is_dominated);
  }
  return result;
}

std::string to_json(const std::vector<PrecisionPoint>& points, const PrecisionOrigin& origin) {
  const std::vector<bool> is_dominated = dominated(points);
  ordered list = ordered::array();
  for (size_t i = 0; i < points.size(); ++i) list.push_back(to_object(points[i], is_dominated[i]));
  const ordered document = {{"version", 1},
                            {"model_fingerprint", origin.model_fingerprint},
                            {"data", {{"name", origin.data}, {"hash", origin.data_hash}}},
                            {"profile", origin.profile},
                            {"rates", origin.rates.empty() ? ordered(nullptr) : ordered(origin.rates)},
                            {"points", list}};
  return document.dump(1) + "\n";
}

std::string precision_table(const std::vector<PrecisionPoint>& points) {
  const std::vector<bool> is_dominated = dominated(points);
  std::string table = "plan or format     experts   bits   predicted loss         KL   perplexity    answers   predicted tok/s"
                      "   tok/s     J/token\n";
  for (size_t i = 0; i < points.size(); ++i) {
    const PrecisionPoint& point = points[i];
    const PrecisionMeasurement& measured = point.measured;
    std::array<char, 256> row{};
    std::snprintf(row.data(), row.size(), "%-14s %8.2f MB %6.3f %16.6f %10.6f %12s %5lld/%-5lld %15.1f %7.1f %11s%s\n",
                  point.name.c_str(), static_cast<double>(point.expert_bytes) / 1e6, point.expert_bits, point.predicted.loss,
                  measured.kl, number_or_none("%.4f", measured.perplexity, measured.perplexity > 0.0).c_str(),
                  static_cast<long long>(measured.right), static_cast<long long>(measured.questions),
                  point.predicted.tokens_per_second, measured.tokens_per_second,
                  number_or_none("%.4f", measured.joules_per_token.value_or(0.0), measured.joules_per_token.has_value()).c_str(),
                  is_dominated[i] ? "  dominated" : "");
    table += row.data();
  }
  return table;
}

}  // namespace skipper
