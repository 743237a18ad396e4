// calibration.json: how much the experts of each layer matter to text and vision tokens, and what routing looked like.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/operating_point.h"
#include "evaluation/layer_alpha.h"
#include "evaluation/routing_trace.h"

namespace skipper {

// One try of an exponent at a skip ratio.
struct ExponentTrial {
  double exponent = 0.0;
  double target_ratio = 0.0;  // of the class's pairs, on the traces
  float tau = 0.0f;
  double skip_ratio = 0.0;    // measured
  double kl = 0.0;            // nats per scored token

  bool operator==(const ExponentTrial&) const = default;
};

struct ClassCalibration {
  std::vector<double> bypass_kl;  // [MoE layer], nats per scored token, when all of the class's pairs there are skipped
  double exponent = 0.0;          // chosen
  std::vector<float> alpha;       // effective: bypass_kl^exponent, sums to 1
  std::vector<ExponentTrial> trials;
};

// On what the numbers were measured, for people and for comparison.
struct CalibrationOrigin {
  std::string data;       // name of the data set
  std::string data_hash;
  int64_t num_samples = 0;         // of the search split
  int64_t num_vision_samples = 0;  // those among them with pictures
  int64_t num_scored = 0;          // their tokens with a loss
  std::string formats;             // of weights, activations and messages, and the instruction set

  bool operator==(const CalibrationOrigin&) const = default;
};

// What the p of a calibration is, as its file names it.
inline constexpr std::string_view kRoutingWeightConvention = "weight / sum over the top-k";

struct SkipCalibration {
  std::string model_fingerprint;
  BypassOutput bypass = BypassOutput::kZero;
  std::array<ClassCalibration, kNumSkippableClasses> classes = {};  // text, vision
  CalibrationOrigin origin = {};
  RoutingTrace trace{TraceShape{}};
};

// {"version": 1, "model_fingerprint": f,
//  "convention": {"p": "weight / sum over the top-k", "bypass": "zero"|"identity", "held_out": "every 5th sample of a kind"},
//  "alpha": {"text": [MoE layers], "vision": [..]}, "exponent": {"text": x, "vision": y},
//  "bypass_kl": {"text": [MoE layers], ..},
//  "trials": {"text": [{"exponent", "target_ratio", "tau", "skip_ratio", "kl"}], ..},
//  "origin": {"data", "data_hash", "num_samples", "num_vision_samples", "num_scored", "formats"},
//  "use": {"prompt": {"text": [MoE layers][experts] pairs, "vision", "protected"}, "generated": {..}},   phases that occurred
//  "scores": {"edges": [129], "text": [MoE layers][128] pairs with edges[b] <= p < edges[b + 1], "vision": ..,
//             "generated_text": those of text that was generated}}
// Answers of questions count as generated. evaluation/calibration_scores.h reads it.
std::string to_json(const SkipCalibration& calibration);

}  // namespace skipper
