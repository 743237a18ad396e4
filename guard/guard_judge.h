// The decision: from errors of experts and distances of predictions to "these weights are not what they should be".
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "guard/guard_config.h"
#include "guard/guard_reading.h"
#include "guard/sliding_sums.h"

namespace skipper {

// Below that no error of an expert counts: sums of other formats' kernels differ by as much, and no answer changes.
inline constexpr double kHarmlessError = 0.02;

// What an expert's relative error may be when its format is known to cost `known_error`.
double allowed_error(const GuardConfig& config, double known_error);

enum class BreachKind : uint8_t { kExpertError, kPredictions };

struct GuardBreach {
  BreachKind kind = BreachKind::kExpertError;
  double measured = 0.0;
  double threshold = 0.0;
  int64_t num_samples = 0;  // rows, or tokens
  int rank = -1;            // of kExpertError, as the next two
  int moe_layer = -1;
  int expert = -1;

  // "expert 3 of MoE layer 2 on rank 1: relative error 0.5 over 0.16 (24 rows)"
  std::string text() const;
};

// Rank 0, engine thread.
class GuardJudge {
 public:
  explicit GuardJudge(const GuardConfig& config) : config_(config) {}

  // readings[r] of rank r, after every step; the worst of those over their threshold.
  std::optional<GuardBreach> judge(std::span<const GuardReading> readings) const;
  // After each scored answer: Σ KL in nats over `num_tokens`.
  std::optional<GuardBreach> judge_predictions(double kl, int64_t num_tokens);
  // Mean over the window; 0 before there is one.
  double mean_kl() const;
  // Other weights serve from here on.
  void forget() { predictions_.clear(); }

 private:
  GuardConfig config_;
  SlidingSums predictions_;  // Σ KL over Σ tokens
};

}  // namespace skipper
