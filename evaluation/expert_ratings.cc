#include "evaluation/expert_ratings.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_fields.h"

namespace skipper {
namespace {

using nlohmann::json;

constexpr double kMaxRating = 1e6;
constexpr int64_t kMaxRows = int64_t{1} << 40;

void check_origin(const JsonFields& file, const ModelIdentity& model) {
  file.required_int("version", 1, 1);
  require_fingerprint(file, model, "run 'skipper experts' on this model");
}

std::vector<float> read_ratings(const JsonFields& fields, const std::string& key, size_t expected) {
  const std::vector<double> values = fields.optional_numbers(key, 0.0, kMaxRating);
  if (values.size() != expected) {
    fields.fail(key, "has " + std::to_string(values.size()) + " numbers where the model needs " + std::to_string(expected) +
                         "; run 'skipper experts' again");
  }
  return {values.begin(), values.end()};
}

// Seven digits: more than a float has.
json rounded(const std::vector<float>& values) {
  json list = json::array();
  for (const float value : values) {
    const double digits = value > 0.0f ? std::pow(10.0, 6.0 - std::floor(std::log10(double{value}))) : 1.0;
    list.push_back(std::round(double{value} * digits) / digits);
  }
  return list;
}

}  // namespace

std::vector<float> ExpertRatings::scale() const {
  std::vector<float> larger(capacity.size());
  std::transform(capacity.begin(), capacity.end(), response.begin(), larger.begin(),
                 [](float one, float other) { return std::max(one, other); });
  return larger;
}

std::string to_json(const ExpertRatings& ratings) {
  json file = {{"version", 1},
               {"model_fingerprint", ratings.model_fingerprint},
               {"data", ratings.data},
               {"rows", ratings.num_rows},
               {"capacity", rounded(ratings.capacity)},
               {"response", rounded(ratings.response)},
               {"similarity", rounded(ratings.similarity)}};
  for (size_t c = 0; c < kNumSkippableClasses; ++c) file["second_share"][class_name(c)] = rounded(ratings.second_share[c]);
  return file.dump() + "\n";
}

ExpertRatings load_expert_ratings(const std::filesystem::path& path, const ModelIdentity& model) {
  const json document = read_json_file(path);
  const JsonFields file(document, path.string());
  check_origin(file, model);
  ExpertRatings ratings{.model_fingerprint = model.fingerprint,
                        .data = file.required_string("data"),
                        .num_rows = file.required_int("rows", 1, kMaxRows),
                        .num_moe_layers = model.num_moe_layers,
                        .num_experts = model.num_experts};
  const auto num_experts = static_cast<size_t>(model.num_experts);
  const size_t all_experts = static_cast<size_t>(model.num_moe_layers) * num_experts;
  ratings.capacity = read_ratings(file, "capacity", all_experts);
  ratings.response = read_ratings(file, "response", all_experts);
  ratings.similarity = read_ratings(file, "similarity", all_experts * num_experts);
  const JsonFields shares = file.required_object("second_share");
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    ratings.second_share[c] = read_ratings(shares, class_name(c), static_cast<size_t>(model.num_moe_layers));
  }
  shares.reject_unknown_keys();
  file.reject_unknown_keys();
  return ratings;
}

}  // namespace skipper
