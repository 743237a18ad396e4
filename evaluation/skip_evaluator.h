// How far operating points move the predictions of a model from those of the unskipped one, over scored samples.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cluster/operating_point.h"
#include "engine/engine.h"
#include "evaluation/point_measurement.h"
#include "evaluation/request_driver.h"
#include "evaluation/scored_samples.h"
#include "processor/multimodal_processor.h"

namespace skipper {

// What one sample gave under one operating point.
struct SampleMeasurement {
  size_t sample = 0;  // index in ScoredSamples
  double kl = 0.0;    // nats: Σ KL(unskipped ‖ point) over its scored tokens
  double nll = 0.0;   // nats: Σ −log p of its scored tokens
  int64_t num_flips = 0;
  int64_t num_scored = 0;
  SkipUsage usage;

  bool operator==(const SampleMeasurement&) const = default;
};

// In order of samples, for intervals by bootstrap; sums are made in that order.
struct Measurement {
  std::vector<SampleMeasurement> samples;

  double kl() const;
  double mean_kl() const;  // per scored token; 0 without any
  double nll() const;
  int64_t num_flips() const;
  int64_t num_scored() const;
  SkipUsage usage() const;
};

// One point over some samples: each of them, and what the steps cost together by class and hop.
struct PointSamples {
  Measurement samples;
  PointMeasurement sums;
};

// Which samples run. Points that act on vision tokens alone change nothing elsewhere.
struct SampleSelection {
  DataSplit split = DataSplit::kSearch;
  std::vector<SampleKind> kinds = {SampleKind::kText, SampleKind::kQuestion, SampleKind::kVisionQuestion};

  bool takes(const ScoredSample& sample) const;
};

// What the steps since start cost, all ranks: feed it the engine's StepReports.
struct StepTotals {
  TrafficCounters traffic;
  double seconds = 0.0;
  int64_t num_steps = 0;

  void add(const StepReport& report);
};

// What an evaluator works with; all of it outlives the evaluator.
struct EvaluatorParts {
  Engine& engine;
  RequestQueue& queue;
  const MultimodalProcessor& processor;
  const ScoredSamples& samples;
};

struct EvaluatorSettings {
  int num_ranks = 1;
  size_t in_flight_per_rank = 32;
  int64_t vocab_size = 0;
  int64_t reference_bytes_per_rank = int64_t{2} << 30;  // the most that references may take
};

// Rank 0, engine thread only; drives the engine itself. Sample i runs on rank i mod num_ranks, where its reference is kept, each
// token of the vocabulary as 4 bytes for each scored token. What a sample gives depends neither on the samples and points beside
// it nor on how many run at once; another number of ranks changes the last bits (the order of the combine sums), but where the
// dispatch adds at the source (SumPlace::kSource).
class SkipEvaluator {
 public:
  // Throws ResourceExhausted when the references of one rank would take more than they may.
  SkipEvaluator(const EvaluatorParts& parts, const EvaluatorSettings& settings);

  // Runs a split unskipped and keeps its predictions. Comes before evaluate(). Samples longer than the context are left out here
  // and there. Throws Error when none is left, or when a likelihood is not a number.
  Measurement measure_reference(DataSplit split, const ProgressCallback& progress);
  // The same for predictions that the ranks hold already, of this model under other settings or over another number of ranks:
  // how far the unskipped model is from them.
  Measurement compare_reference(DataSplit split, const ProgressCallback& progress);
  // As levels of one table, at most 255: all samples of the selection at all points. One measurement for each point. A KL that is
  // not a number is left to the caller.
  std::vector<Measurement> evaluate(std::span<const OperatingPoint> points, const SampleSelection& selection,
                                    const ProgressCallback& progress);
  // One point over some samples of a split whose reference is there. `totals` is what the engine's observer feeds.
  PointSamples measure_samples(const OperatingPoint& point, const SampleSelection& selection, const StepTotals& totals);
  // One point over a whole split, with what it cost by class and hop; measures the reference of the split first when there is
  // none yet.
  PointMeasurement measure_point(const OperatingPoint& point, DataSplit split, const StepTotals& totals);

  size_t num_selected(const SampleSelection& selection) const { return selected(selection).size(); }
  size_t num_too_long() const { return num_too_long_; }

 private:
  struct Run;

  void require_memory(int64_t bytes_per_rank) const;
  std::vector<size_t> selected(const SampleSelection& selection) const;
  GenerationRequest request_for(size_t sample);
  Measurement run_unskipped(DataSplit split, ReferenceUse use, const ProgressCallback& progress);
  std::vector<Measurement> run(const Run& run, const ProgressCallback& progress);

  EvaluatorParts parts_;
  EvaluatorSettings settings_;
  RequestDriver driver_;
  std::vector<uint8_t> is_left_out_;  // by sample: too long
  std::array<bool, 2> has_reference_{};  // by split
  size_t num_too_long_ = 0;
  // The last sample that was made ready: its points follow one another, and pictures take time.
  size_t ready_sample_ = SIZE_MAX;
  GenerationRequest ready_;
};

}  // namespace skipper
