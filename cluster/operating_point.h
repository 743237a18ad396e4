// Skip thresholds: one operating point, and the versioned table of levels that is the same on every rank.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cluster/token_class.h"

namespace skipper {

// One set of thresholds. A (token, expert) pair of layer l and class c is skipped iff alpha[c][l] · p < tau[c], p being the
// expert's weight normalised over the token's top-k (MoDES, eq. 3 and 5). Protected tokens have no thresholds.
// Goals: the file format of operating_point.json, validated. Non-goals: choosing the numbers (evaluation/ does).
struct OperatingPoint {
  // [class text = 0, vision = 1][MoE layer]; each sums to 1 over the layers.
  std::array<std::vector<float>, 2> alpha;
  std::array<float, 2> tau = {0.0f, 0.0f};
  bool protect_top1 = false;
};

// Level 0 always skips nothing; level n ≥ 1 is the n-th operating point. Immutable; shared by all ranks of a job.
struct LevelTable {
  uint32_t version = 1;
  std::vector<OperatingPoint> levels;  // levels[0] has tau = 0

  int num_levels() const { return static_cast<int>(levels.size()); }
};

struct ModelIdentity {
  std::string fingerprint;
  int num_moe_layers = 0;
};

// Every number of the table as text, for comparing it between ranks.
std::string describe(const LevelTable& table);

// A table with level 0 alone.
LevelTable unskipped_levels(int num_moe_layers);

// Reads operating_point.json (becomes level 1) or frontier.json (its "levels" become 0..n; its level 0 must skip nothing).
// Throws InvalidFile naming file and key: unknown keys, NaN or negative thresholds, alpha that does not sum to 1 or has
// another number of layers than the model, a fingerprint of another model (both named), keys of rules this build lacks.
LevelTable load_levels(const std::filesystem::path& path, const ModelIdentity& model);

}  // namespace skipper
