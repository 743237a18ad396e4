#include "cluster/operating_point.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/byte_codec.h"
#include "base/error.h"
#include "base/json_fields.h"

namespace skipper {

using nlohmann::json;

namespace {

constexpr double kAlphaSumTolerance = 1e-3;
constexpr double kMaxTau = 1000.0;  // the score is at most 1, so anything over 1 skips every pair already
constexpr size_t kMinLevelBytes = 2 * sizeof(uint64_t) + sizeof(std::array<float, 2>) + sizeof(uint8_t);  // encoded
constexpr size_t kMaxLevels = 256;  // a token carries its level in one byte

std::string class_name(size_t token_class) { return std::string(kTokenClassNames[token_class]); }

void check_version(const JsonFields& fields) { fields.required_int("version", 1, 1); }

void check_fingerprint(const JsonFields& fields, const ModelIdentity& model) {
  if (!fields.has("model_fingerprint")) return;
  const std::string found = fields.required_string("model_fingerprint");
  if (found == model.fingerprint) return;
  fields.fail("model_fingerprint", "made for model " + found + " but the loaded model is " + model.fingerprint +
                                       "; calibrate for this model");
}

void refuse_unsupported_rules(const JsonFields& fields) {
  if (fields.has("tau_dst")) {
    fields.fail("tau_dst", "the destination rule is not supported by this build yet; remove the key");
  }
  if (fields.optional_bool("renormalize", false)) {
    fields.fail("renormalize", "true is not supported by this build yet; set it to false");
  }
}

std::vector<float> read_alpha(const JsonFields& alpha, const std::string& key, int num_moe_layers) {
  if (!alpha.has(key)) alpha.fail(key, "is missing; expected one number per MoE layer");
  const std::vector<double> values = alpha.optional_numbers(key, 0.0, 1.0);
  if (values.size() != static_cast<size_t>(num_moe_layers)) {
    alpha.fail(key, "has " + std::to_string(values.size()) + " numbers but the model has " +
                        std::to_string(num_moe_layers) + " MoE layers");
  }
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  if (!values.empty() && std::abs(sum - 1.0) > kAlphaSumTolerance) {
    alpha.fail(key, "sums to " + std::to_string(sum) + "; expected 1 over the layers (equal alpha is 1/" +
                        std::to_string(num_moe_layers) + ")");
  }
  return {values.begin(), values.end()};
}

// Reads everything of a point but the keys of its file (version, model_fingerprint).
OperatingPoint read_thresholds(const JsonFields& fields, int num_moe_layers) {
  refuse_unsupported_rules(fields);
  OperatingPoint point;
  const JsonFields alpha = fields.required_object("alpha");
  const JsonFields tau = fields.required_object("tau");
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    point.alpha[c] = read_alpha(alpha, class_name(c), num_moe_layers);
    point.tau[c] = static_cast<float>(tau.required_number(class_name(c), 0.0, kMaxTau));
  }
  alpha.reject_unknown_keys();
  tau.reject_unknown_keys();
  point.protect_top1 = fields.optional_bool("protect_top1", false);
  return point;
}

OperatingPoint read_point_file(const JsonFields& fields, const ModelIdentity& model) {
  OperatingPoint point = read_thresholds(fields, model.num_moe_layers);
  fields.reject_unknown_keys();
  return point;
}

// One entry of a frontier: a point, and what was measured at it, which is for people and the solver.
OperatingPoint read_frontier_level(const json& entry, const std::string& path, const ModelIdentity& model) {
  const JsonFields fields(entry, path);
  if (fields.has("version")) check_version(fields);
  check_fingerprint(fields, model);
  fields.optional_object("measured");
  return read_point_file(fields, model);
}

std::vector<OperatingPoint> read_frontier(const JsonFields& fields, const ModelIdentity& model) {
  const json& entries = fields.raw("levels");
  if (!entries.is_array() || entries.empty() || entries.size() > kMaxLevels) {
    fields.fail("levels", "expected a list of 1 to " + std::to_string(kMaxLevels) + " operating points");
  }
  std::vector<OperatingPoint> levels;
  for (const json& entry : entries) {
    const std::string path = fields.path() + ": levels[" + std::to_string(levels.size()) + "]";
    levels.push_back(read_frontier_level(entry, path, model));
  }
  if (levels.front().tau != std::array<float, 2>{0.0f, 0.0f}) {
    fields.fail("levels[0]", "level 0 must skip nothing; set its tau to 0 for text and vision");
  }
  fields.reject_unknown_keys();
  return levels;
}

}  // namespace

std::string describe(const LevelTable& table) {
  json levels = json::array();
  for (const OperatingPoint& point : table.levels) {
    levels.push_back({{"alpha", point.alpha}, {"tau", point.tau}, {"protect_top1", point.protect_top1}});
  }
  return json({{"version", table.version}, {"levels", levels}}).dump();
}

void encode(const LevelTable& table, std::vector<std::byte>& out) {
  ByteWriter writer(out);
  writer.value(table.version);
  writer.value<uint64_t>(table.levels.size());
  for (const OperatingPoint& point : table.levels) {
    for (const std::vector<float>& alpha : point.alpha) writer.values(alpha);
    writer.value(point.tau);
    writer.value<uint8_t>(point.protect_top1 ? 1 : 0);
  }
}

LevelTable decode_level_table(std::span<const std::byte> bytes) {
  ByteReader reader(bytes, "level table");
  LevelTable table;
  table.version = reader.value<uint32_t>();
  table.levels.resize(reader.count(kMinLevelBytes));
  for (OperatingPoint& point : table.levels) {
    for (std::vector<float>& alpha : point.alpha) alpha = reader.values<float>();
    point.tau = reader.value<std::array<float, 2>>();
    point.protect_top1 = reader.value<uint8_t>() != 0;
  }
  reader.expect_end();
  return table;
}

LevelTable unskipped_levels(int num_moe_layers) {
  OperatingPoint point;
  for (std::vector<float>& alpha : point.alpha) {
    alpha.assign(static_cast<size_t>(num_moe_layers), 1.0f / static_cast<float>(std::max(num_moe_layers, 1)));
  }
  LevelTable table;
  table.levels.push_back(std::move(point));
  return table;
}

LevelTable load_levels(const std::filesystem::path& path, const ModelIdentity& model) {
  const json document = read_json_file(path);
  const JsonFields fields(document, path.string());
  check_version(fields);
  check_fingerprint(fields, model);
  LevelTable table = unskipped_levels(model.num_moe_layers);
  if (fields.has("levels")) {
    table.levels = read_frontier(fields, model);
  } else {
    table.levels.push_back(read_point_file(fields, model));
  }
  return table;
}

}  // namespace skipper
