#include "evaluation/skip_calibration.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "evaluation/scored_samples.h"

namespace skipper {
namespace {

// Keys in the order in which they are documented.
using json = nlohmann::ordered_json;

json trials_of(const ClassCalibration& one) {
  json trials = json::array();
  for (const ExponentTrial& trial : one.trials) {
    trials.push_back({{"exponent", trial.exponent}, {"target_ratio", trial.target_ratio}, {"tau", trial.tau},
                      {"skip_ratio", trial.skip_ratio}, {"kl", trial.kl}});
  }
  return trials;
}

json origin_of(const CalibrationOrigin& origin) {
  return {{"data", origin.data}, {"data_hash", origin.data_hash}, {"num_samples", origin.num_samples},
          {"num_vision_samples", origin.num_vision_samples}, {"num_scored", origin.num_scored},
          {"formats", origin.formats}};
}

// [layers][experts]
json use_of(const RoutingTrace& trace, TokenPhase phase, TokenClass token_class) {
  json layers = json::array();
  for (int layer = 0; layer < trace.shape().num_moe_layers; ++layer) layers.push_back(trace.experts(layer, phase, token_class));
  return layers;
}

bool occurs(const RoutingTrace& trace, TokenPhase phase) {
  for (int layer = 0; layer < trace.shape().num_moe_layers; ++layer) {
    for (size_t c = 0; c < kNumTokenClasses; ++c) {
      const auto counts = trace.experts(layer, phase, static_cast<TokenClass>(c));
      if (std::any_of(counts.begin(), counts.end(), [](int64_t count) { return count > 0; })) return true;
    }
  }
  return false;
}

json use_section(const RoutingTrace& trace) {
  json use = json::object();
  for (size_t p = 0; p < kNumTokenPhases; ++p) {
    const auto phase = static_cast<TokenPhase>(p);
    if (!occurs(trace, phase)) continue;
    json& section = use[std::string(kTokenPhaseNames[p])];
    for (size_t c = 0; c < kNumTokenClasses; ++c) section[class_name(c)] = use_of(trace, phase, static_cast<TokenClass>(c));
  }
  return use;
}

json scores_section(const RoutingTrace& trace) {
  json scores = {{"edges", RoutingTrace::edges()}};
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    json& layers = scores[class_name(c)] = json::array();
    for (int layer = 0; layer < trace.shape().num_moe_layers; ++layer) {
      layers.push_back(trace.shares(layer, static_cast<TokenClass>(c)));
    }
  }
  if (!occurs(trace, TokenPhase::kGenerated)) return scores;
  json& generated = scores["generated_text"] = json::array();
  for (int layer = 0; layer < trace.shape().num_moe_layers; ++layer) {
    generated.push_back(trace.shares(layer, TokenPhase::kGenerated, TokenClass::kText));
  }
  return scores;
}

}  // namespace

std::string to_json(const SkipCalibration& calibration) {
  json file = {{"version", 1}, {"model_fingerprint", calibration.model_fingerprint}};
  file["convention"] = {{"p", kRoutingWeightConvention}, {"bypass", name_of(calibration.bypass)},
                        {"held_out", "every " + std::to_string(kHeldOutEvery) + "th sample of a kind"}};
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    const ClassCalibration& one = calibration.classes[c];
    file["alpha"][class_name(c)] = one.alpha;
    file["exponent"][class_name(c)] = one.exponent;
    file["bypass_kl"][class_name(c)] = one.bypass_kl;
    file["trials"][class_name(c)] = trials_of(one);
  }
  file["origin"] = origin_of(calibration.origin);
  file["use"] = use_section(calibration.trace);
  file["scores"] = scores_section(calibration.trace);
  return file.dump() + "\n";
}

}  // namespace skipper
