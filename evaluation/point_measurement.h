// What one pass over answered questions finds at an operating point: how far answers move, and what they cost.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>

#include "cluster/operating_point.h"
#include "cluster/token_class.h"

namespace skipper {

// Sums over one data set, all ranks, in which answers are fed as part of the prompt: every token is of phase prompt.
struct PointMeasurement {
  double kl = 0.0;            // nats: Σ KL(unskipped ‖ this point) over answer tokens
  int64_t num_flips = 0;      // answer tokens whose most probable successor differs from the unskipped model's
  int64_t num_scored = 0;     // answer tokens
  std::array<int64_t, kNumTokenClasses> pairs_run{};
  std::array<int64_t, kNumTokenClasses> pairs_skipped{};
  std::array<int64_t, kNumHops> bytes_sent{};   // payload, both directions
  std::array<int64_t, kNumHops> bytes_saved{};
  double seconds = 0.0;       // of its steps
  int64_t num_steps = 0;

  double mean_kl() const;     // per answer token
  double flip_ratio() const;
  double skip_ratio() const;  // over text and vision pairs
  double skip_ratio_of(TokenClass token_class) const;
  double saved_bytes_ratio() const;  // of what would be sent to other ranks; 0 on one rank
  double remote_bytes() const;       // sent to other ranks
  double pairs() const;              // run, of all classes
  double step_seconds() const;       // mean

  bool operator==(const PointMeasurement&) const = default;
};

// Which part of the data: thresholds are chosen on one and reported on the other.
enum class DataSplit : uint8_t { kSearch, kHeldOut };

// Runs every sample of a split at a point.
using PointEvaluator = std::function<PointMeasurement(const OperatingPoint&, DataSplit)>;

// All fields, for files of our own. from_json throws nlohmann's exceptions when it is not what to_json wrote.
nlohmann::json sums_to_json(const PointMeasurement& measurement);
PointMeasurement sums_from_json(const nlohmann::json& json);

}  // namespace skipper
