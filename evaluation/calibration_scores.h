// What a frontier needs of calibration.json: how much each layer matters, and the scores that its pairs have.
#pragma once

#include <filesystem>

#include "cluster/operating_point.h"
#include "evaluation/frontier_methods.h"

namespace skipper {

struct CalibrationScores {
  SkipScores calibrated;  // with the file's alpha
  SkipScores equal;       // with alpha = 1 / layers
};

// Reads "alpha" and "scores" of a file of `skipper calibrate`:
//   "alpha": {"text": [L], "vision": [L]}, each with a sum of 1
//   "scores": {"edges": [B + 1], "text": [L][B], "vision": [L][B]}: pairs by routing weight p, edges[b] ≤ p < edges[b + 1]
// Throws InvalidFile naming file and key: a fingerprint of another model (both named), another number of layers, numbers that
// are none or negative, a file without them, no text pair at all. A class without pairs has no thresholds to search.
CalibrationScores load_calibration_scores(const std::filesystem::path& path, const ModelIdentity& model);

}  // namespace skipper
