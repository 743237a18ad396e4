#include "evaluation/point_measurement.h"

#include <nlohmann/json.hpp>
#include <numeric>

namespace skipper {
namespace {

double share(double part, double rest) { return part + rest > 0.0 ? part / (part + rest) : 0.0; }

double per(double sum, int64_t count) { return count > 0 ? sum / static_cast<double>(count) : 0.0; }

double remote(const std::array<int64_t, kNumHops>& bytes) {
  return static_cast<double>(bytes[static_cast<size_t>(Hop::kNode)] + bytes[static_cast<size_t>(Hop::kNetwork)]);
}

}  // namespace

double PointMeasurement::mean_kl() const { return per(kl, num_scored); }

double PointMeasurement::flip_ratio() const { return per(static_cast<double>(num_flips), num_scored); }

double PointMeasurement::skip_ratio() const {
  double run = 0.0;
  double skipped = 0.0;
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    run += static_cast<double>(pairs_run[c]);
    skipped += static_cast<double>(pairs_skipped[c]);
  }
  return share(skipped, run);
}

double PointMeasurement::skip_ratio_of(TokenClass token_class) const {
  const auto c = static_cast<size_t>(token_class);
  return share(static_cast<double>(pairs_skipped[c]), static_cast<double>(pairs_run[c]));
}

double PointMeasurement::saved_bytes_ratio() const { return share(remote(bytes_saved), remote(bytes_sent)); }

double PointMeasurement::remote_bytes() const { return remote(bytes_sent); }

double PointMeasurement::pairs() const {
  return static_cast<double>(std::accumulate(pairs_run.begin(), pairs_run.end(), int64_t{0}));
}

double PointMeasurement::step_seconds() const { return per(seconds, num_steps); }

nlohmann::json sums_to_json(const PointMeasurement& m) {
  return {{"kl", m.kl}, {"num_flips", m.num_flips}, {"num_scored", m.num_scored}, {"pairs_run", m.pairs_run},
          {"pairs_skipped", m.pairs_skipped}, {"bytes_sent", m.bytes_sent}, {"bytes_saved", m.bytes_saved},
          {"seconds", m.seconds}, {"num_steps", m.num_steps}};
}

PointMeasurement sums_from_json(const nlohmann::json& json) {
  PointMeasurement m;
  json.at("kl").get_to(m.kl);
  json.at("num_flips").get_to(m.num_flips);
  json.at("num_scored").get_to(m.num_scored);
  json.at("pairs_run").get_to(m.pairs_run);
  json.at("pairs_skipped").get_to(m.pairs_skipped);
  json.at("bytes_sent").get_to(m.bytes_sent);
  json.at("bytes_saved").get_to(m.bytes_saved);
  json.at("seconds").get_to(m.seconds);
  json.at("num_steps").get_to(m.num_steps);
  return m;
}

}  // namespace skipper
