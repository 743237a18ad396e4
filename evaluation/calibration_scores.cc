#include "evaluation/calibration_scores.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "base/json_fields.h"
#include "evaluation/skip_calibration.h"

namespace skipper {
namespace {

using nlohmann::json;

constexpr double kAlphaSumTolerance = 1e-3;
constexpr double kMaxCount = 1e18;

using LayerCounts = std::vector<std::vector<double>>;  // [MoE layer][bucket]

void check_origin(const JsonFields& file, const ModelIdentity& model) {
  file.required_int("version", 1, 1);
  require_fingerprint(file, model, "run 'skipper calibrate' on this model");
}

std::vector<float> read_alpha(const JsonFields& alpha, const std::string& name, int num_moe_layers) {
  const std::vector<double> values = alpha.optional_numbers(name, 0.0, 1.0);
  if (values.size() != static_cast<size_t>(num_moe_layers)) {
    alpha.fail(name, "has " + std::to_string(values.size()) + " numbers but the model has " + std::to_string(num_moe_layers) +
                         " MoE layers; run 'skipper calibrate' again");
  }
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  if (!values.empty() && std::abs(sum - 1.0) > kAlphaSumTolerance) {
    alpha.fail(name, "sums to " + std::to_string(sum) + "; expected 1 over the layers; run 'skipper calibrate' again");
  }
  return {values.begin(), values.end()};
}

double read_count(const json& value, const JsonFields& scores, const std::string& name) {
  if (!value.is_number() || !(value.get<double>() >= 0.0) || value.get<double>() > kMaxCount) {
    scores.fail(name, value.dump() + " is no count of pairs; run 'skipper calibrate' again");
  }
  return value.get<double>();
}

LayerCounts read_counts(const JsonFields& scores, const std::string& name, size_t num_buckets, int num_moe_layers) {
  const json& layers = scores.raw(name);
  if (!layers.is_array() || layers.size() != static_cast<size_t>(num_moe_layers)) {
    scores.fail(name, "expected counts for each of " + std::to_string(num_moe_layers) +
                          " MoE layers; run 'skipper calibrate' again");
  }
  LayerCounts counts;
  for (const json& layer : layers) {
    if (!layer.is_array() || layer.size() != num_buckets) {
      scores.fail(name, "expected " + std::to_string(num_buckets) + " counts for each layer, one between each two edges");
    }
    counts.emplace_back();
    for (const json& value : layer) counts.back().push_back(read_count(value, scores, name));
  }
  return counts;
}

// Files made by hand may leave it out.
void check_convention(const JsonFields& file) {
  const auto convention = file.optional_object("convention");
  if (!convention) return;
  const std::string p = convention->optional_string("p", std::string(kRoutingWeightConvention));
  if (p == kRoutingWeightConvention) return;
  convention->fail("p", "is of '" + p + "', but thresholds are compared with '" + std::string(kRoutingWeightConvention) +
                            "'; run 'skipper calibrate' again");
}

// All pairs of a bucket at the upper edge: the highest threshold must be over all of them.
ScoreDistribution distribution(const LayerCounts& counts, const std::vector<double>& edges, const std::vector<float>& alpha) {
  std::vector<ScoreCount> scores;
  for (size_t layer = 0; layer < counts.size(); ++layer) {
    for (size_t b = 0; b < counts[layer].size(); ++b) {
      scores.push_back({static_cast<double>(alpha[layer]) * edges[b + 1], counts[layer][b]});
    }
  }
  return ScoreDistribution(std::move(scores));
}

std::vector<double> read_edges(const JsonFields& scores) {
  const std::vector<double> edges = scores.optional_numbers("edges", 0.0, 2.0);
  for (size_t i = 1; i < edges.size(); ++i) {
    if (edges[i] <= edges[i - 1]) scores.fail("edges", "must ascend");
  }
  if (edges.size() < 2) scores.fail("edges", "expected at least 2 numbers; run 'skipper calibrate' again");
  return edges;
}

}  // namespace

CalibrationScores load_calibration_scores(const std::filesystem::path& path, const ModelIdentity& model) {
  const json document = read_json_file(path);
  const JsonFields file(document, path.string());
  check_origin(file, model);
  check_convention(file);
  const JsonFields alpha = file.required_object("alpha");
  const JsonFields scores = file.required_object("scores");
  const std::vector<double> edges = read_edges(scores);
  CalibrationScores result;
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    const std::string name = class_name(c);
    result.calibrated.alpha[c] = read_alpha(alpha, name, model.num_moe_layers);
    result.equal.alpha = unskipped_levels(model.num_moe_layers).levels[0].alpha;
    const LayerCounts counts = read_counts(scores, name, edges.size() - 1, model.num_moe_layers);
    result.calibrated.scores[c] = distribution(counts, edges, result.calibrated.alpha[c]);
    result.equal.scores[c] = distribution(counts, edges, result.equal.alpha[c]);
  }
  if (result.calibrated.scores[0].is_empty()) {
    scores.fail("text", "holds no pair; calibrate on data with text, 'skipper calibrate --data models/demo/calibration'");
  }
  return result;
}

}  // namespace skipper
