#include "bench/model_report.h"

#include <algorithm>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

namespace skipper {
namespace {

constexpr double kGiga = 1e9;

const char* phase_key(Phase phase) { return phase == Phase::kPrefill ? "prefill" : "decode"; }

// Bytes that the fastest run of the case read in a second. A step of a prefill is all its tokens.
double bytes_per_second(const CaseReport& report, int num_ranks) {
  const bool is_prefill = report.benchmark.phase == Phase::kPrefill;
  const auto tokens_per_step = static_cast<double>(report.benchmark.size * (is_prefill ? num_ranks : 1));
  return report.tokens_per_second.max() / tokens_per_step * report.work.num_bytes;
}

nlohmann::json to_json(const Samples& samples) {
  return {{"min", samples.min()}, {"median", samples.median()}, {"max", samples.max()}, {"samples", samples.values}};
}

nlohmann::json details_of(const CaseReport& report, const ModelReport& all) {
  const DistinctExperts& experts = report.work.experts;
  const double rate = bytes_per_second(report, all.num_ranks);
  return {{"tokens_per_second", to_json(report.tokens_per_second)},
          {"distinct_experts_per_layer", {{"mean", experts.mean}, {"min", experts.min}, {"max", experts.max}}},
          {"bytes_per_step", report.work.num_bytes},
          {"gb_per_second", rate / kGiga},
          {"share_of_read_rate", rate / all.read_bytes_per_second.max()}};
}

}  // namespace

double Samples::min() const { return *std::ranges::min_element(values); }

double Samples::max() const { return *std::ranges::max_element(values); }

double Samples::median() const {
  std::vector<double> sorted = values;
  std::ranges::sort(sorted);
  const size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

nlohmann::json to_json(const ModelReport& report) {
  nlohmann::json result = {{"model", report.config.model.string()},
                           {"ranks", report.num_ranks},
                           {"threads_per_rank", report.threads_per_rank},
                           {"context", report.config.context},
                           {"decode_steps", report.config.decode_steps},
                           {"read_bytes_per_second", to_json(report.read_bytes_per_second)},
                           {"prefill", nlohmann::json::object()},
                           {"decode", nlohmann::json::object()}};
  for (const CaseReport& report_of_case : report.cases) {
    const std::string size = std::to_string(report_of_case.benchmark.size);
    const char* phase = phase_key(report_of_case.benchmark.phase);
    result[phase][size] = report_of_case.tokens_per_second.max();
    result["details"][phase][size] = details_of(report_of_case, report);
  }
  return result;
}

std::string to_table(const ModelReport& report) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << report.num_ranks << " ranks of " << report.threads_per_rank
       << " threads; main memory reads " << report.read_bytes_per_second.max() / kGiga << " GB/s (median "
       << report.read_bytes_per_second.median() / kGiga << ")\n"
       << "case           tok/s best    median       min   experts a layer  GB a step    GB/s  of read rate\n";
  for (const CaseReport& row : report.cases) {
    const double rate = bytes_per_second(row, report.num_ranks);
    text << std::left << std::setw(14) << row.benchmark.name() << std::right << std::setw(11) << row.tokens_per_second.max()
         << std::setw(10) << row.tokens_per_second.median() << std::setw(10) << row.tokens_per_second.min() << std::setw(11)
         << row.work.experts.mean << " of" << std::setw(4) << report.num_experts << std::setw(10) << std::setprecision(3)
         << row.work.num_bytes / kGiga << std::setprecision(1) << std::setw(8) << rate / kGiga << std::setw(11)
         << 100.0 * rate / report.read_bytes_per_second.max() << " %\n";
  }
  return text.str();
}

}  // namespace skipper
