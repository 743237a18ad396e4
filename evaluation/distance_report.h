// How far a level's predictions are from those of the unskipped model, kind by kind.
#pragma once

#include <array>
#include <cstdint>

#include "evaluation/bootstrap.h"
#include "evaluation/scored_samples.h"
#include "evaluation/skip_evaluator.h"

namespace skipper {

struct KindDistance {
  int64_t samples = 0;
  int64_t tokens = 0;     // scored
  double mean_kl = 0.0;   // nats per scored token: KL(unskipped ‖ level)
  Interval kl_interval;   // 95 %, samples drawn again
  double flip_ratio = 0.0;  // of scored tokens, whose most probable successor differs
};

// By SampleKind: windows of texts, questions, questions with a picture.
using DistanceReport = std::array<KindDistance, kNumSampleKinds>;

// Sums by kind; `measurements` name samples of `samples`.
DistanceReport distance_report(const ScoredSamples& samples, const std::vector<SampleMeasurement>& measurements);

}  // namespace skipper
