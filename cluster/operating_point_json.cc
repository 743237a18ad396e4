// operating_point.json and frontier.json: what is in them, and what they may hold.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "base/json_fields.h"
#include "cluster/operating_point.h"

namespace skipper {

using nlohmann::json;

namespace {

constexpr double kAlphaSumTolerance = 1e-3;
constexpr double kMaxTau = 1000.0;  // the score is at most 1, so anything over 1 skips every pair already
constexpr double kMaxBeta = 1000.0;
constexpr double kMaxExpertScale = 1e6;
constexpr double kMaxExpertSimilarity = 1e6;
constexpr double kMaxRankCapacity = 1e6;
constexpr int64_t kMaxKeptExperts = 1 << 16;
constexpr int64_t kMaxRanks = 1 << 16;
constexpr size_t kMaxLevels = 256;  // a token carries its level in one byte

constexpr std::array<std::string_view, 5> kPairRuleNames = {"score", "top_k", "tail_mass", "relative", "similar"};
constexpr std::array<std::string_view, 2> kDestinationScoreNames = {"sum_of_squares", "sum"};

std::string hop_name(Hop hop) { return std::string(kHopNames[static_cast<size_t>(hop)]); }

// The enumerator of that name; absent means the first.
template <typename Enum, size_t num_names>
Enum read_name(const JsonFields& fields, const std::string& key, const std::array<std::string_view, num_names>& names) {
  const std::string name = fields.optional_string(key, std::string(names[0]));
  const auto found = std::ranges::find(names, name);
  if (found != names.end()) return static_cast<Enum>(found - names.begin());
  std::string expected;
  for (const std::string_view known : names) expected += (expected.empty() ? "'" : ", '") + std::string(known) + "'";
  fields.fail(key, "'" + name + "' is not known; expected one of " + expected);
}

void check_version(const JsonFields& fields) { fields.required_int("version", 1, 1); }

void check_fingerprint(const JsonFields& fields, const ModelIdentity& model) {
  if (fields.has("model_fingerprint")) require_fingerprint(fields, model, "calibrate for this model");
}

std::string name_of(const PlacementWorld& world) {
  return std::to_string(world.ranks) + " ranks, " + std::to_string(world.ranks_per_node) + " per node";
}

PlacementWorld read_world(const JsonFields& fields) {
  const std::optional<JsonFields> placement = fields.optional_object("placement");
  if (!placement) return {};
  const PlacementWorld world{.ranks = static_cast<int>(placement->required_int("ranks", 1, kMaxRanks)),
                             .ranks_per_node = static_cast<int>(placement->required_int("ranks_per_node", 1, kMaxRanks))};
  placement->reject_unknown_keys();
  return world;
}

void check_shadows(const JsonFields& fields, const LevelTable& table, ShadowCopies shadows) {
  if (shadows != ShadowCopies::kNone || std::ranges::none_of(table.levels, &OperatingPoint::uses_shadows)) return;
  fields.fail("tau_shadow", "needs shadow copies, but no rank has any; make a plan with 'skipper plan --shadow_format' "
                            "and start with --plan");
}

void check_placement(const JsonFields& fields, const LevelTable& table, const PlacementWorld& running) {
  check_shadows(fields, table, running.shadows);
  const PlacementWorld found = read_world(fields);
  const bool is_same = found.ranks == running.ranks && found.ranks_per_node == running.ranks_per_node;
  if (found.ranks == 0 || running.ranks == 0 || is_same) return;
  if (!std::ranges::any_of(table.levels, &OperatingPoint::depends_on_placement)) return;
  fields.fail("placement", "thresholds of destinations were found on " + name_of(found) + " but this is " + name_of(running) +
                               "; search a frontier for this placement");
}

void check_num_layers(const JsonFields& fields, const std::string& key, size_t found, int num_moe_layers) {
  if (found == static_cast<size_t>(num_moe_layers)) return;
  fields.fail(key, "has " + std::to_string(found) + " numbers but the model has " + std::to_string(num_moe_layers) +
                       " MoE layers");
}

std::vector<float> read_alpha(const JsonFields& alpha, const std::string& key, int num_moe_layers) {
  if (!alpha.has(key)) alpha.fail(key, "is missing; expected one number per MoE layer");
  const std::vector<double> values = alpha.optional_numbers(key, 0.0, 1.0);
  check_num_layers(alpha, key, values.size(), num_moe_layers);
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  if (!values.empty() && std::abs(sum - 1.0) > kAlphaSumTolerance) {
    alpha.fail(key, "sums to " + std::to_string(sum) + "; expected 1 over the layers (equal alpha is 1/" +
                        std::to_string(num_moe_layers) + ")");
  }
  return {values.begin(), values.end()};
}

// A number for each class.
std::array<float, kNumSkippableClasses> read_by_class(const JsonFields& parent, const std::string& key, double max) {
  const JsonFields fields = parent.required_object(key);
  std::array<float, kNumSkippableClasses> values{};
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    values[c] = static_cast<float>(fields.required_number(class_name(c), 0.0, max));
  }
  fields.reject_unknown_keys();
  return values;
}

std::array<std::vector<float>, kNumSkippableClasses> read_alphas(const JsonFields& parent, int num_moe_layers) {
  const JsonFields fields = parent.required_object("alpha");
  std::array<std::vector<float>, kNumSkippableClasses> alphas;
  for (size_t c = 0; c < kNumSkippableClasses; ++c) alphas[c] = read_alpha(fields, class_name(c), num_moe_layers);
  fields.reject_unknown_keys();
  return alphas;
}

std::array<std::vector<float>, kNumSkippableClasses> read_betas(const JsonFields& parent, int num_moe_layers) {
  const JsonFields fields = parent.required_object("beta");
  std::array<std::vector<float>, kNumSkippableClasses> betas;
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    const std::vector<double> values = fields.optional_numbers(class_name(c), 0.0, kMaxBeta);
    if (!values.empty()) check_num_layers(fields, class_name(c), values.size(), num_moe_layers);  // empty: all 0
    betas[c] = {values.begin(), values.end()};
  }
  fields.reject_unknown_keys();
  return betas;
}

[[noreturn]] void fail_size(const JsonFields& fields, const std::string& key, size_t found, const ModelIdentity& model) {
  fields.fail(key, "has " + std::to_string(found) + " numbers but the model has " + std::to_string(model.num_moe_layers) +
                       " MoE layers of " + std::to_string(model.num_experts) + " experts");
}

std::vector<float> read_expert_scale(const JsonFields& fields, const ModelIdentity& model) {
  const std::vector<double> values = fields.optional_numbers("expert_scale", 0.0, kMaxExpertScale);
  const auto num_layers = static_cast<size_t>(std::max(model.num_moe_layers, 1));
  const size_t expected = num_layers * static_cast<size_t>(model.num_experts);
  const bool fits = model.num_experts > 0 ? values.size() == expected : values.size() % num_layers == 0;
  if (!values.empty() && !fits) fail_size(fields, "expert_scale", values.size(), model);
  return {values.begin(), values.end()};
}

size_t side_of_square(size_t area) { return static_cast<size_t>(std::lround(std::sqrt(static_cast<double>(area)))); }

// A square for each layer.
std::vector<float> read_expert_similarity(const JsonFields& fields, const ModelIdentity& model) {
  const std::vector<double> values = fields.optional_numbers("expert_similarity", 0.0, kMaxExpertSimilarity);
  const auto num_layers = static_cast<size_t>(std::max(model.num_moe_layers, 1));
  const auto side = model.num_experts > 0 ? static_cast<size_t>(model.num_experts) : side_of_square(values.size() / num_layers);
  if (values.empty()) fields.fail("expert_similarity", "is missing; expected the numbers of 'skipper experts'");
  if (values.size() != num_layers * side * side) fail_size(fields, "expert_similarity", values.size(), model);
  return {values.begin(), values.end()};
}

void refuse_keys_of_other_rules(const JsonFields& fields, PairRule rule) {
  const auto refuse = [&](const char* key, std::initializer_list<PairRule> rules) {
    if (!fields.has(key) || std::ranges::find(rules, rule) != rules.end()) return;
    fields.fail(key, "has no meaning for pair_rule '" + std::string(kPairRuleNames[static_cast<size_t>(rule)]) +
                         "'; remove the key or change the rule");
  };
  refuse("tau", {PairRule::kScore});
  refuse("tau_generated", {PairRule::kScore});
  refuse("kept_k", {PairRule::kTopK});
  refuse("beta", {PairRule::kTailMass, PairRule::kRelative, PairRule::kSimilar});
  refuse("expert_similarity", {PairRule::kSimilar});
}

void read_pair_rule(const JsonFields& fields, const ModelIdentity& model, OperatingPoint& point) {
  point.pair_rule = read_name<PairRule>(fields, "pair_rule", kPairRuleNames);
  refuse_keys_of_other_rules(fields, point.pair_rule);
  point.alpha = read_alphas(fields, model.num_moe_layers);
  point.expert_scale = read_expert_scale(fields, model);
  switch (point.pair_rule) {
    case PairRule::kScore:
      point.tau = read_by_class(fields, "tau", kMaxTau);
      if (fields.has("tau_generated")) {
        point.tau_generated = static_cast<float>(fields.required_number("tau_generated", 0.0, kMaxTau));
      }
      break;
    case PairRule::kTopK:
      point.kept_k = read_by_class(fields, "kept_k", static_cast<double>(kMaxKeptExperts));
      break;
    case PairRule::kTailMass:
    case PairRule::kRelative:
      point.beta = read_betas(fields, model.num_moe_layers);
      break;
    case PairRule::kSimilar:
      point.beta = read_betas(fields, model.num_moe_layers);
      point.expert_similarity = read_expert_similarity(fields, model);
      break;
  }
}

using HopThresholds = std::array<std::array<float, kNumHops>, kNumSkippableClasses>;

HopThresholds read_hop_thresholds(const JsonFields& fields, const char* key) {
  HopThresholds found{};
  const std::optional<JsonFields> thresholds = fields.optional_object(key);
  if (!thresholds) return found;
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    const std::optional<JsonFields> of_class = thresholds->optional_object(class_name(c));
    if (!of_class) continue;
    for (const Hop hop : {Hop::kNode, Hop::kNetwork}) {
      found[c][static_cast<size_t>(hop)] = static_cast<float>(of_class->optional_number(hop_name(hop), 0.0, 0.0, kMaxTau));
    }
    of_class->reject_unknown_keys();
  }
  thresholds->reject_unknown_keys();
  return found;
}

void read_destination_rules(const JsonFields& fields, OperatingPoint& point) {
  point.destination_score = read_name<DestinationScore>(fields, "destination_score", kDestinationScoreNames);
  point.tau_dst = read_hop_thresholds(fields, "tau_dst");
  point.tau_shadow = read_hop_thresholds(fields, "tau_shadow");
}

void read_batch_rules(const JsonFields& fields, OperatingPoint& point) {
  const auto read_count = [&](const char* key) {
    return static_cast<int32_t>(fields.optional_int(key, 0, 0, kMaxKeptExperts));
  };
  point.rank_capacity = static_cast<float>(fields.optional_number("rank_capacity", 0.0, 0.0, kMaxRankCapacity));
  if (point.rank_capacity > 0.0f && point.rank_capacity < 1.0f) {
    fields.fail("rank_capacity", "must be 0 (no limit) or at least 1, in multiples of the mean over ranks");
  }
  point.decode_base_k = read_count("decode_base_k");
  point.decode_rank_experts = read_count("decode_rank_experts");
}

// Reads everything of a point but the keys of its file (version, model_fingerprint, placement).
OperatingPoint read_point(const JsonFields& fields, const ModelIdentity& model) {
  OperatingPoint point;
  read_pair_rule(fields, model, point);
  read_destination_rules(fields, point);
  read_batch_rules(fields, point);
  point.exempt_local = fields.optional_bool("exempt_local", false);
  point.protect_top1 = fields.optional_bool("protect_top1", false);
  point.protect_margin = static_cast<float>(fields.optional_number("protect_margin", 0.0, 0.0, 1.0));
  point.protect_attention = static_cast<float>(fields.optional_number("protect_attention", 0.0, 0.0, 1.0));
  point.renormalize = fields.optional_bool("renormalize", false);
  return point;
}

// One entry of a frontier: a point, and what was measured at it.
OperatingPoint read_frontier_level(const json& entry, const std::string& path, const ModelIdentity& model) {
  const JsonFields fields(entry, path);
  if (fields.has("version")) check_version(fields);
  check_fingerprint(fields, model);
  fields.optional_object("measured");
  OperatingPoint point = read_point(fields, model);
  fields.reject_unknown_keys();
  return point;
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
  if (!levels.front().skips_nothing()) {
    fields.fail("levels[0]", "level 0 must skip nothing; set its thresholds to 0 for text and vision");
  }
  return levels;
}

template <typename T>
json by_class(const std::array<T, kNumSkippableClasses>& values) {
  json object;
  for (size_t c = 0; c < kNumSkippableClasses; ++c) object[class_name(c)] = values[c];
  return object;
}

json thresholds_of_hops(const HopThresholds& thresholds) {
  json object;
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    for (const Hop hop : {Hop::kNode, Hop::kNetwork}) {
      object[class_name(c)][hop_name(hop)] = thresholds[c][static_cast<size_t>(hop)];
    }
  }
  return object;
}

void write_pair_rule(const OperatingPoint& point, json& fields) {
  fields["alpha"] = by_class(point.alpha);
  if (point.pair_rule != PairRule::kScore) fields["pair_rule"] = kPairRuleNames[static_cast<size_t>(point.pair_rule)];
  if (point.pair_rule == PairRule::kScore) fields["tau"] = by_class(point.tau);
  if (point.pair_rule == PairRule::kScore && point.tau_generated) fields["tau_generated"] = *point.tau_generated;
  if (point.pair_rule == PairRule::kTopK) fields["kept_k"] = by_class(point.kept_k);
  if (point.pair_rule >= PairRule::kTailMass) fields["beta"] = by_class(point.beta);
  if (point.pair_rule == PairRule::kSimilar) fields["expert_similarity"] = point.expert_similarity;
  if (!point.expert_scale.empty()) fields["expert_scale"] = point.expert_scale;
}

}  // namespace

void require_fingerprint(const JsonFields& file, const ModelIdentity& model, const std::string& advice) {
  const std::string found = file.required_string("model_fingerprint");
  if (found == model.fingerprint) return;
  file.fail("model_fingerprint",
            "made for model " + found + " but the loaded model is " + model.fingerprint + "; " + advice);
}

json to_json(const OperatingPoint& point) {
  const OperatingPoint defaults;
  json fields;
  const auto write_unless_default = [&](const char* key, const auto& value, const auto& fallback) {
    if (value != fallback) fields[key] = value;
  };
  write_pair_rule(point, fields);
  if (point.tau_dst != defaults.tau_dst) fields["tau_dst"] = thresholds_of_hops(point.tau_dst);
  if (point.tau_shadow != defaults.tau_shadow) fields["tau_shadow"] = thresholds_of_hops(point.tau_shadow);
  if (point.destination_score != defaults.destination_score) {
    fields["destination_score"] = kDestinationScoreNames[static_cast<size_t>(point.destination_score)];
  }
  write_unless_default("exempt_local", point.exempt_local, defaults.exempt_local);
  write_unless_default("rank_capacity", point.rank_capacity, defaults.rank_capacity);
  write_unless_default("decode_base_k", point.decode_base_k, defaults.decode_base_k);
  write_unless_default("decode_rank_experts", point.decode_rank_experts, defaults.decode_rank_experts);
  write_unless_default("protect_top1", point.protect_top1, defaults.protect_top1);
  write_unless_default("protect_margin", point.protect_margin, defaults.protect_margin);
  write_unless_default("protect_attention", point.protect_attention, defaults.protect_attention);
  write_unless_default("renormalize", point.renormalize, defaults.renormalize);
  return fields;
}

LevelTable load_levels(const std::filesystem::path& path, const ModelIdentity& model, const PlacementWorld& world) {
  return read_levels(read_json_file(path), path.string(), model, world);
}

LevelTable read_levels(const json& document, const std::string& name, const ModelIdentity& model, const PlacementWorld& world) {
  const JsonFields fields(document, name);
  check_version(fields);
  check_fingerprint(fields, model);
  LevelTable table = unskipped_levels(model.num_moe_layers);
  if (fields.has("levels")) {
    table.levels = read_frontier(fields, model);
  } else {
    table.levels.push_back(read_point(fields, model));
  }
  check_placement(fields, table, world);
  fields.reject_unknown_keys();
  return table;
}

}  // namespace skipper
