#include "planning/precision_profile.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>

#include "base/error.h"
#include "base/json_fields.h"

namespace skipper {
namespace {

using nlohmann::json;

constexpr double kMaxNumber = 1e300;
constexpr double kShareTolerance = 1e-6;
constexpr int kVersion = 2, kVersionWithPoint = 2;
constexpr size_t kIdentityDigits = 16;

void check_subject(const JsonFields& file, const ProfileShape& shape) {
  const std::string found = file.required_string("model_fingerprint");
  if (found != shape.model_fingerprint) {
    file.fail("model_fingerprint", "measured on model " + found + " but the planned model is " + shape.model_fingerprint +
                                       "; run 'skipper profile' on this model");
  }
  const auto require_same = [&](const char* key, int expected) {
    const int64_t value = file.required_int(key, 0, 1 << 20);
    if (value == expected) return;
    file.fail(key, std::to_string(value) + ", but the model has " + std::to_string(expected));
  };
  require_same("num_moe_layers", shape.num_moe_layers);
  require_same("num_experts", shape.num_experts);
}

// What is absent counts 0.
ClassPhaseValues read_token_share(const JsonFields& fields) {
  ClassPhaseValues share{};
  double sum = 0.0;
  for (size_t c = 0; c < kNumTokenClasses; ++c) {
    const auto phases = fields.optional_object(std::string(kTokenClassNames[c]));
    if (!phases) continue;
    for (size_t p = 0; p < kNumTokenPhases; ++p) {
      sum += share[c][p] = phases->optional_number(std::string(kTokenPhaseNames[p]), 0.0, 0.0, 1.0);
    }
    phases->reject_unknown_keys();
  }
  fields.reject_unknown_keys();
  if (std::abs(sum - 1.0) <= kShareTolerance) return share;
  throw InvalidFile(fields.path() + ": sums to " + std::to_string(sum) + " over classes and phases; expected 1");
}

std::vector<double> read_values(const JsonFields& fields, const std::string& key, double max, size_t num_experts) {
  std::vector<double> values = fields.optional_numbers(key, 0.0, max);
  if (values.size() == num_experts) return values;
  fields.fail(key, "has " + std::to_string(values.size()) + " numbers for " + std::to_string(num_experts) + " experts");
}

void read_use(const JsonFields& fields, LayerSensitivity& layer) {
  for (size_t c = 0; c < kNumTokenClasses; ++c) {
    const auto phases = fields.optional_object(std::string(kTokenClassNames[c]));
    if (!phases) continue;
    for (size_t p = 0; p < kNumTokenPhases; ++p) {
      const std::string phase(kTokenPhaseNames[p]);
      if (!phases->has(phase)) continue;
      const std::vector<double> use = read_values(*phases, phase, 1.0, layer.experts.size());
      for (size_t e = 0; e < use.size(); ++e) layer.experts[e].use[c][p] = use[e];
    }
    phases->reject_unknown_keys();
  }
  fields.reject_unknown_keys();
}

LayerSensitivity read_layer(const json& object, const std::string& path, const PrecisionProfile& profile, int num_experts) {
  const JsonFields fields(object, path);
  LayerSensitivity layer;
  layer.kappa = fields.required_number("kappa", 0.0, kMaxNumber);
  layer.experts.resize(static_cast<size_t>(num_experts));
  read_use(fields.required_object("use"), layer);
  const JsonFields errors = fields.required_object("error");
  for (const WeightFormat& format : profile.formats) {
    const std::vector<double> values = read_values(errors, name_of(format), kMaxNumber, layer.experts.size());
    for (size_t e = 0; e < values.size(); ++e) layer.experts[e].error.push_back(values[e]);
  }
  errors.reject_unknown_keys();
  fields.reject_unknown_keys();
  return layer;
}

WeightFormat parse_format(const std::string& text, const JsonFields& fields) {
  try {
    return parse_weight_format(text, fields.path());
  } catch (const InvalidRequest& error) {
    throw InvalidFile(error.what());
  }
}

// The formats of the first layer's errors; the others must have the same.
std::vector<WeightFormat> read_formats(const json& layers, const JsonFields& file) {
  std::vector<WeightFormat> formats;
  if (layers.empty()) return formats;
  const JsonFields first(layers[0], file.path() + ": layers[0]");
  const JsonFields errors = first.required_object("error");
  for (const auto& [name, values] : first.raw("error").items()) {
    formats.push_back(parse_format(name, errors));
    if (formats.back().is_integer()) continue;
    errors.fail(name, "is no rounded format; errors are those of integer formats against bf16");
  }
  std::ranges::sort(formats, {}, [](const WeightFormat& format) { return format.bits_per_weight(); });
  return formats;
}

void read_layers(const JsonFields& file, const ProfileShape& shape, PrecisionProfile& profile) {
  const json& layers = file.raw("layers");
  if (!layers.is_array() || layers.size() != static_cast<size_t>(shape.num_moe_layers)) {
    file.fail("layers", "expected a list with one entry for each of " + std::to_string(shape.num_moe_layers) + " MoE layers");
  }
  profile.formats = read_formats(layers, file);
  for (const json& layer : layers) {
    const std::string path = file.path() + ": layers[" + std::to_string(profile.layers.size()) + "]";
    profile.layers.push_back(read_layer(layer, path, profile, shape.num_experts));
  }
}

void read_uniform_loss(const JsonFields& file, PrecisionProfile& profile) {
  const auto losses = file.optional_object("uniform_loss");
  if (!losses) return;
  losses->optional_number("bf16", 0.0, 0.0, 0.0);
  for (const WeightFormat& format : profile.formats) {
    profile.uniform_loss.push_back(losses->required_number(name_of(format), 0.0, kMaxNumber));
  }
  losses->reject_unknown_keys();
}

void read_fit(const JsonFields& file, PrecisionProfile& profile) {
  const auto fit = file.optional_object("additive_fit");
  if (!fit) return;
  profile.additive_fit = {.r_squared = fit->required_number("r_squared", -kMaxNumber, 1.0),
                          .num_plans = static_cast<int>(fit->required_int("num_plans", 1, 1 << 20))};
  fit->reject_unknown_keys();
}

std::string read_operating_point(const JsonFields& file) {
  std::string point = file.required_string("operating_point");
  const bool is_hexadecimal = point.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (point.empty() || (point.size() == kIdentityDigits && is_hexadecimal)) return point;
  file.fail("operating_point", "'" + point + "' is neither empty nor 16 hexadecimal digits");
}

// Geometric means with the mean, whose logarithm no small loss sways.
void draw_together(std::span<double> losses, double shrinkage) {
  if (shrinkage <= 0.0 || losses.empty()) return;
  const double mean = std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
  for (double& loss : losses) loss = std::pow(loss, 1.0 - shrinkage) * std::pow(mean, shrinkage);
}

ProfileData read_data(const JsonFields& fields) {
  ProfileData data{.name = fields.required_string("name"),
                   .hash = fields.required_string("hash"),
                   .num_tokens = fields.required_int("tokens", 0, int64_t{1} << 60)};
  fields.reject_unknown_keys();
  return data;
}

using ordered = nlohmann::ordered_json;

// Classes without any tokens are left out.
bool occurs(const PrecisionProfile& profile, size_t token_class) {
  const auto& share = profile.token_share[token_class];
  return std::ranges::any_of(share, [](double value) { return value > 0.0; });
}

ordered token_share_of(const PrecisionProfile& profile) {
  ordered object = ordered::object();
  for (size_t c = 0; c < kNumTokenClasses; ++c) {
    if (!occurs(profile, c)) continue;
    for (size_t p = 0; p < kNumTokenPhases; ++p) {
      object[std::string(kTokenClassNames[c])][std::string(kTokenPhaseNames[p])] = profile.token_share[c][p];
    }
  }
  return object;
}

ordered layer_of(const PrecisionProfile& profile, const LayerSensitivity& layer) {
  ordered object = {{"kappa", layer.kappa}, {"use", ordered::object()}, {"error", ordered::object()}};
  for (const ExpertSensitivity& expert : layer.experts) {
    for (size_t c = 0; c < kNumTokenClasses; ++c) {
      for (size_t p = 0; p < kNumTokenPhases && occurs(profile, c); ++p) {
        object["use"][std::string(kTokenClassNames[c])][std::string(kTokenPhaseNames[p])].push_back(expert.use[c][p]);
      }
    }
    for (size_t f = 0; f < profile.formats.size(); ++f) object["error"][name_of(profile.formats[f])].push_back(expert.error[f]);
  }
  return object;
}

// Mean of an expert's use over the tokens of `phases`, weighted by their shares.
double mean_use(const PrecisionProfile& profile, const ExpertId& id, std::initializer_list<TokenPhase> phases) {
  double use = 0.0, share = 0.0;
  for (size_t c = 0; c < kNumTokenClasses; ++c) {
    for (const TokenPhase phase : phases) {
      const auto p = static_cast<size_t>(phase);
      use += profile.token_share[c][p] * profile.at(id).use[c][p];
      share += profile.token_share[c][p];
    }
  }
  return share > 0.0 ? use / share : -1.0;
}

double mean_error(const LayerSensitivity& layer, size_t format) {
  double sum = 0.0;
  for (const ExpertSensitivity& expert : layer.experts) sum += expert.error[format];
  return layer.experts.empty() ? 0.0 : sum / static_cast<double>(layer.experts.size());
}

// An expert that no token of the data met counts as if one more had: it is not worth nothing.
double use_of_unmet(const PrecisionProfile& profile) { return 1.0 / static_cast<double>(profile.data.num_tokens + 1); }

}  // namespace

const ExpertSensitivity& PrecisionProfile::at(const ExpertId& id) const {
  return layers.at(static_cast<size_t>(id.layer)).experts.at(static_cast<size_t>(id.expert));
}

double PrecisionProfile::use_of(const ExpertId& id) const {
  return std::max(0.0, mean_use(*this, id, {TokenPhase::kPrompt, TokenPhase::kGenerated}));
}

double PrecisionProfile::decode_use_of(const ExpertId& id) const {
  const double use = mean_use(*this, id, {TokenPhase::kGenerated});
  return use >= 0.0 ? use : use_of(id);
}

PrecisionProfile load_precision_profile(const std::filesystem::path& path, const ProfileShape& shape) {
  const json document = read_json_file(path);
  const JsonFields file(document, path.string());
  const int64_t version = file.required_int("version", 1, kVersion);
  check_subject(file, shape);
  PrecisionProfile profile;
  if (version >= kVersionWithPoint) profile.operating_point = read_operating_point(file);
  profile.model_fingerprint = shape.model_fingerprint;
  profile.data = read_data(file.required_object("data"));
  profile.token_share = read_token_share(file.required_object("token_share"));
  read_layers(file, shape, profile);
  read_uniform_loss(file, profile);
  read_fit(file, profile);
  file.reject_unknown_keys();
  return profile;
}

std::string to_json(const PrecisionProfile& profile) {
  const ProfileData& data = profile.data;
  ordered file = {{"version", profile.operating_point ? kVersion : 1}, {"model_fingerprint", profile.model_fingerprint},
                  {"num_moe_layers", profile.num_moe_layers()}, {"num_experts", profile.num_experts()}};
  if (profile.operating_point) file["operating_point"] = *profile.operating_point;
  file["data"] = {{"name", data.name}, {"hash", data.hash}, {"tokens", data.num_tokens}};
  file["token_share"] = token_share_of(profile);
  file["layers"] = ordered::array();
  for (const LayerSensitivity& layer : profile.layers) file["layers"].push_back(layer_of(profile, layer));
  for (size_t f = 0; f < profile.uniform_loss.size(); ++f) {
    file["uniform_loss"][name_of(profile.formats[f])] = profile.uniform_loss[f];
  }
  if (profile.additive_fit) {
    file["additive_fit"] = {{"r_squared", profile.additive_fit->r_squared}, {"num_plans", profile.additive_fit->num_plans}};
  }
  return file.dump() + "\n";
}

std::vector<double> expert_losses(const PrecisionProfile& profile, const WeightFormat& format) {
  std::vector<double> losses;
  if (!format.is_integer()) {
    losses.resize(static_cast<size_t>(profile.num_moe_layers()) * static_cast<size_t>(profile.num_experts()));
    return losses;
  }
  const auto found = std::ranges::find(profile.formats, format);
  CHECK(found != profile.formats.end()) << "the profile has no errors of " << name_of(format);
  const auto index = static_cast<size_t>(found - profile.formats.begin());
  for (int32_t layer = 0; layer < profile.num_moe_layers(); ++layer) {
    const double mean = mean_error(profile.layers[static_cast<size_t>(layer)], index);
    for (int32_t expert = 0; expert < profile.num_experts(); ++expert) {
      const ExpertId id{layer, expert};
      const double use = profile.use_of(id);
      const double loss = use > 0.0 ? use * profile.at(id).error[index] : use_of_unmet(profile) * mean;
      losses.push_back(profile.layers[static_cast<size_t>(layer)].kappa * loss);
    }
    draw_together(std::span(losses).last(static_cast<size_t>(profile.num_experts())), profile.shrinkage);
  }
  const double sum = std::accumulate(losses.begin(), losses.end(), 0.0);
  if (profile.uniform_loss.empty() || sum <= 0.0) return losses;
  for (double& loss : losses) loss *= profile.uniform_loss[index] / sum;
  return losses;
}

}  // namespace skipper
