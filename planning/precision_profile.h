// What rounding each expert costs: use, output errors and the factors that turn them into a loss. What the planner reads.
//
// profile.json, version 2 (`skipper profile` measures it). Layers count MoE layers; arrays of [num_experts] in expert order:
//
//   {"version": 2, "model_fingerprint": "0123456789abcdef", "num_moe_layers": 48, "num_experts": 128,
//    "operating_point": "",
//    "data": {"name": "calibration", "hash": "0123456789abcdef", "tokens": 183000},
//    "token_share": {"text": {"prompt": 0.4, "generated": 0.3}, "vision": {"prompt": 0.2, "generated": 0}, ...},   sums to 1
//    "layers": [{"kappa": 0.7,
//                "use": {"text": {"prompt": [E], "generated": [E]}, "vision": {...}, "protected": {...}},
//                "error": {"int4a-g32": [E], "int8-g64": [E], ...}}, ...],
//    "uniform_loss": {"bf16": 0, "int8-g64": 0.0002, "int4a-g32": 0.011, ...},
//    "additive_fit": {"r_squared": 0.97, "num_plans": 30}}
//
// "operating_point" names the level of skipping at which all was measured, by 16 hexadecimal digits over its numbers; "" is none.
// Version 1, which is read as well, lacks it.
//
// A class or phase that did not occur may be left out of "token_share" and "use": it counts 0. Every format of "error" is in
// every layer; "uniform_loss" and "additive_fit" are optional, but a measured profile without the former predicts by a plain
// sum.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cluster/token_class.h"
#include "experts/expert_id.h"
#include "kernels/weight_format.h"

namespace skipper {

// Measured on calibration data, or derived from the shape of the model alone: then losses are relative and say only which plan
// is better.
enum class ProfileBasis : uint8_t { kMeasured, kAnalytic };

// [class][phase]
using ClassPhaseValues = std::array<std::array<double, kNumTokenPhases>, kNumTokenClasses>;

struct ExpertSensitivity {
  // Share of the tokens of a class and phase that run on the expert, after skipping: 0 to 1.
  ClassPhaseValues use{};
  // error[f] = mean over the tokens that ran on it of g² · ‖E_f(x) − E(x)‖², g the routing weight: in profile.formats' order.
  std::vector<double> error;
};

struct LayerSensitivity {
  double kappa = 0.0;  // nats per token for a unit of Σ_experts use · error
  std::vector<ExpertSensitivity> experts;
};

struct AdditiveFit {
  double r_squared = 0.0;  // of the sum of losses against measured losses of random plans
  int num_plans = 0;
};

struct ProfileData {
  std::string name;
  std::string hash;
  int64_t num_tokens = 0;
};

struct PrecisionProfile {
  ProfileBasis basis = ProfileBasis::kMeasured;
  std::string model_fingerprint;
  // Identity of the level of skipping that all was measured at, empty: none; nothing where it is not known.
  std::optional<std::string> operating_point;
  ProfileData data;
  ClassPhaseValues token_share{};     // of all tokens; sums to 1
  std::vector<WeightFormat> formats;  // that errors are known for, ascending by bytes; bf16 has no error and is not among them
  std::vector<LayerSensitivity> layers;
  std::vector<double> uniform_loss;   // [formats] measured KL in nats per token of all experts in one format; empty: not measured
  std::optional<AdditiveFit> additive_fit;
  // How far losses are drawn towards the mean of their layer, on a logarithmic scale: 0 as measured, 1 all experts of a layer
  // alike. Not in files: who plans decides how far to trust them.
  double shrinkage = 0.0;

  int num_moe_layers() const { return static_cast<int>(layers.size()); }
  int num_experts() const { return layers.empty() ? 0 : static_cast<int>(layers.front().experts.size()); }
  const ExpertSensitivity& at(const ExpertId& id) const;

  // Share of all tokens, or of the generated ones, that run on the expert; for a profile without generated tokens of all.
  double use_of(const ExpertId& id) const;
  double decode_use_of(const ExpertId& id) const;
};

// The shape that a profile must have.
struct ProfileShape {
  std::string model_fingerprint;
  int num_moe_layers = 0;
  int num_experts = 0;
};

// Throws InvalidFile naming file and key: another model (both fingerprints named), other numbers of layers or experts, unknown
// keys or formats, shares outside 0 to 1 or of another sum than 1, numbers that are negative or not finite.
PrecisionProfile load_precision_profile(const std::filesystem::path& path, const ProfileShape& shape);

std::string to_json(const PrecisionProfile& profile);

// Loss that rounding each expert to `format` adds, in nats per token, [layer · num_experts + expert]: use · kappa · error, scaled
// so that the sum is uniform_loss where that was measured. An expert that no token met counts as met once, with the mean error of
// its layer; then losses are drawn together by `shrinkage`. 0 for bf16. The format is one of the profile's.
std::vector<double> expert_losses(const PrecisionProfile& profile, const WeightFormat& format);

}  // namespace skipper
