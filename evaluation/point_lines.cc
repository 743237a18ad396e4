#include "evaluation/point_lines.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

using nlohmann::json;

constexpr const char* kFormatsKey = "expert_formats";

WeightFormat parse_format(const std::string& name, const std::string& key) {
  try {
    return parse_weight_format(name, key);
  } catch (const InvalidRequest& error) {
    throw InvalidFile(error.what());
  }
}

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

std::optional<PointLine> PointReader::next() {
  for (std::string line; std::getline(lines_, line);) {
    ++line_number_;
    if (is_blank(line)) continue;
    const std::string where = name_ + ", line " + std::to_string(line_number_);
    const json document = json::parse(line, nullptr, false);
    if (document.is_discarded()) throw InvalidFile(where + ": is no JSON; expected one operating point on the line");
    if (document.contains(kFormatsKey)) return PointLine{.point = std::nullopt, .formats = read_formats(document, where)};
    return PointLine{.point = read_point(document, where), .formats = std::nullopt};
  }
  return std::nullopt;
}

OperatingPoint PointReader::read_point(const json& document, const std::string& where) const {
  const LevelTable table = read_levels(document, where, model_, world_);
  if (table.num_levels() != 2) throw InvalidFile(where + ": holds several levels; give one operating point a line");
  return table.levels[1];
}

ExpertFormats PointReader::read_formats(const json& document, const std::string& where) const {
  const std::string key = where + ", " + kFormatsKey;
  if (document.size() != 1) throw InvalidFile(key + ": stands beside other keys; give formats and points on lines of their own");
  std::vector<std::vector<std::string>> names;
  try {
    document.at(kFormatsKey).get_to(names);
  } catch (const json::exception&) {
    throw InvalidFile(key + ": is no list of lists of names; give the format of each expert, layer by layer");
  }
  const auto num_layers = static_cast<size_t>(model_.num_moe_layers);
  const auto num_experts = static_cast<size_t>(model_.num_experts);
  if (names.size() != num_layers || std::ranges::any_of(names, [&](const auto& layer) { return layer.size() != num_experts; })) {
    throw InvalidFile(key + ": does not fit the model; it has " + std::to_string(num_layers) + " MoE layers of " +
                      std::to_string(num_experts) + " experts");
  }
  ExpertFormats formats(num_layers);
  for (size_t layer = 0; layer < num_layers; ++layer) {
    for (const std::string& name : names[layer]) formats[layer].push_back(parse_format(name, key));
  }
  return formats;
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
