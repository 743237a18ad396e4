#include "evaluation/point_lines.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

using nlohmann::json;

bool is_blank(const std::string& line) { return line.find_first_not_of(" \t\r") == std::string::npos; }

json kind_json(const PointSamples& measured, const std::vector<uint8_t>& right) {
  json lists = {{"kl", json::array()}, {"nll", json::array()}, {"flips", json::array()}, {"sums", sums_to_json(measured.sums)}};
  for (const SampleMeasurement& sample : measured.samples.samples) {
    lists["kl"].push_back(sample.kl);
    lists["nll"].push_back(sample.nll);
    lists["flips"].push_back(sample.num_flips);
  }
  if (!right.empty()) lists["right"] = right;
  return lists;
}

}  // namespace

std::optional<OperatingPoint> PointReader::next() {
  for (std::string line; std::getline(lines_, line);) {
    ++line_number_;
    if (is_blank(line)) continue;
    const std::string where = name_ + ", line " + std::to_string(line_number_);
    const json document = json::parse(line, nullptr, false);
    if (document.is_discarded()) throw InvalidFile(where + ": is no JSON; expected one operating point on the line");
    const LevelTable table = read_levels(document, where, model_, world_);
    if (table.num_levels() != 2) throw InvalidFile(where + ": holds several levels; give one operating point a line");
    return table.levels[1];
  }
  return std::nullopt;
}

std::string samples_line(const ScoredSamples& samples, const std::vector<SampleMeasurement>& reference,
                         const std::string& origin) {
  json kinds;
  for (const SampleMeasurement& measured : reference) {
    const ScoredSample& sample = samples.samples[measured.sample];
    json& kind = kinds[kSampleKindNames[static_cast<size_t>(sample.kind)]];
    kind["scored"].push_back(measured.num_scored);
    if (sample.kind != SampleKind::kText) kind["task"].push_back(sample.sample.question.task);
  }
  return json({{"version", 1}, {"origin", origin}, {"samples", kinds}}).dump();
}

std::string to_line(const MeasuredLine& measured) {
  json kinds;
  for (size_t kind = 0; kind < kNumSampleKinds; ++kind) {
    if (measured.kinds[kind].samples.samples.empty()) continue;
    kinds[kSampleKindNames[kind]] = kind_json(measured.kinds[kind], measured.right[kind]);
  }
  return json({{"point", to_json(measured.point)}, {"kinds", kinds}}).dump();
}

}  // namespace skipper
