// Operating points, or formats of experts, one a line in; what each does to every sample one a line out.
#pragma once

#include <array>
#include <cstdint>
#include <istream>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cluster/operating_point.h"
#include "evaluation/format_scorer.h"
#include "evaluation/scored_samples.h"
#include "evaluation/skip_evaluator.h"

namespace skipper {

inline constexpr std::array<const char*, kNumSampleKinds> kSampleKindNames = {"texts", "questions", "visual_questions"};

// Either is absent: a point that skips, or formats that the experts have from then on.
struct PointLine {
  std::optional<OperatingPoint> point;
  std::optional<ExpertFormats> formats;
};

// Reads one JSON document a line: an operating point, or {"expert_formats": [[name, ...], ...]} by MoE layer and expert. Empty
// lines are skipped.
class PointReader {
 public:
  // `name` is for messages; `lines` outlives the reader.
  PointReader(std::istream& lines, std::string name, const ModelIdentity& model, const PlacementWorld& world)
      : lines_(lines), name_(std::move(name)), model_(model), world_(world) {}

  // Nothing at the end. Throws InvalidFile naming line and key, also for a line of several levels.
  std::optional<PointLine> next();

 private:
  OperatingPoint read_point(const nlohmann::json& document, const std::string& where) const;
  ExpertFormats read_formats(const nlohmann::json& document, const std::string& where) const;

  std::istream& lines_;
  std::string name_;
  ModelIdentity model_;
  PlacementWorld world_;
  int line_number_ = 0;
};

// The samples as one line: {"version":1,"origin":s,"samples":{kind:{"scored":[n]}, ...}}, and for kinds of questions
// "task":[..]. Lists are in the order of the data, and so they are in the lines of points; what fits no context is left out.
std::string samples_line(const ScoredSamples& samples, const std::vector<SampleMeasurement>& reference,
                         const std::string& origin);

// What one point did, by kind; `right` is there when answers were generated: one of each question, in the same order.
struct MeasuredLine {
  OperatingPoint point;
  std::array<PointSamples, kNumSampleKinds> kinds;
  std::array<std::vector<uint8_t>, kNumSampleKinds> right;
};

// {"point":{..},"kinds":{kind:{"kl":[..],"nll":[..],"flips":[..],"right":[..],"sums":{..}}}} without kinds that have no sample;
// kl and nll in nats summed over a sample's scored tokens, "sums" as in point_measurement.h.
std::string to_line(const MeasuredLine& measured);

}  // namespace skipper
