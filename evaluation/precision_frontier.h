// What plans for a sweep of memory sizes are predicted to lose and to take, and what they were measured to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "evaluation/format_scorer.h"

namespace skipper {

// Planned for a budget, or all experts in one format: what plans are held against.
enum class PrecisionSource : uint8_t { kPlan, kUniform };

struct PrecisionPrediction {
  double loss = 0.0;  // of the profile, in nats where it was measured
  double tokens_per_second = 0.0;
};

struct PrecisionMeasurement {
  double kl = 0.0;          // nats per scored token against unrounded experts, held-out samples
  double perplexity = 0.0;  // of the held-out texts; 0 where there are none
  int64_t right = 0;        // answers
  int64_t questions = 0;
  double tokens_per_second = 0.0;  // of one stream
  std::optional<double> joules_per_token;
};

struct PrecisionPoint {
  PrecisionSource source = PrecisionSource::kPlan;
  std::string name;           // "210.0 MB", "int4a-g32"
  size_t memory_bytes = 0;    // the budget of a plan, what a uniform format takes
  size_t expert_bytes = 0;
  double expert_bits = 0.0;   // per weight
  double bytes_per_token = 0.0;
  ExpertFormats formats;
  PrecisionPrediction predicted;
  PrecisionMeasurement measured;
};

// For each point whether another takes no more bytes for experts, loses no more (measured KL), is no slower (predicted, which
// other programs do not sway), and is better in one of them.
std::vector<bool> dominated(const std::vector<PrecisionPoint>& points);

// What a frontier was measured on.
struct PrecisionOrigin {
  std::string model;  // as people call it
  std::string model_fingerprint;
  std::string data;
  std::string data_hash;
  std::string profile;  // "measured", "analytic"
  std::string rates;    // whose; empty: assumed
};

// {"version":1,"model_fingerprint":f,"data":{"name","hash"},"profile":"measured"|"analytic","rates":text|null,
//  "points":[{"source":"plan"|"uniform","name","memory_bytes","expert_bytes","expert_bits","bytes_per_token","dominated":b,
//             "predicted":{"loss","tokens_per_second"},
//             "measured":{"kl","perplexity"|null,"right","questions","tokens_per_second","joules_per_token"|null}}]}
std::string to_json(const std::vector<PrecisionPoint>& points, const PrecisionOrigin& origin);

// For people, "n/a" for what was not measured.
std::string precision_table(const std::vector<PrecisionPoint>& points);

// One HTML page without outside resources: KL against bytes and against speed, predicted and measured, and a table.
std::string to_page(const std::vector<PrecisionPoint>& points, const PrecisionOrigin& origin);

}  // namespace skipper
