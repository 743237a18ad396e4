// Measures what the formats of experts cost: the KL divergence of a model's predictions from those of its unrounded experts.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "evaluation/loss_estimate.h"
#include "evaluation/request_driver.h"
#include "evaluation/scored_samples.h"
#include "kernels/weight_format.h"
#include "model/multimodal_model.h"
#include "planning/expert_plan.h"
#include "processor/multimodal_processor.h"

namespace skipper {

// [MoE layer][expert]
using ExpertFormats = std::vector<std::vector<WeightFormat>>;

ExpertFormats uniform_formats(const ModelConfig& config, const WeightFormat& format);
// Those that a plan serves by; its shadow copies do not count.
ExpertFormats serving_formats(const ExpertPlan& plan, const ModelConfig& config);

// Everything outlives the scorer. The model has all of its experts on this rank, in slots of their own number, in BF16.
struct ScorerParts {
  Engine& engine;
  RequestQueue& queue;
  const MultimodalProcessor& processor;
  const ScoredSamples& samples;
  MultimodalModel& model;
  ThreadPool& workers;
};

struct ScorerSettings {
  DataSplit split = DataSplit::kSearch;
  uint8_t level = 0;  // at which all samples run: losses are those of rounding alone
  int64_t reference_bytes = int64_t{2} << 30;  // the most that the predictions of unrounded experts may take
};

// Engine thread of the only rank; drives the engine itself.
class FormatScorer {
 public:
  // Throws ResourceExhausted when the predictions take too much, InvalidFile when no sample of the split fits into the context.
  FormatScorer(const ScorerParts& parts, const ScorerSettings& settings);

  // Runs the samples with unrounded experts and keeps what they predict; comes first.
  void keep_reference(const ProgressCallback& progress);
  // Mean KL in nats per scored token of the model with these formats, which it has from then on. Throws Error when it is no
  // number.
  double measure(const ExpertFormats& formats);
  // The same with the perplexity of the texts among the samples; 0 where there are none.
  struct Score {
    double kl = 0.0;
    double text_perplexity = 0.0;
    std::vector<ScoredLoss> samples;  // in the order of every score: losses of two of them are paired
  };
  Score score(const ExpertFormats& formats);

  int64_t num_scored() const { return num_scored_; }

 private:
  std::vector<DrivenResult> run(ReferenceUse use, const ProgressCallback& progress);
  void set_formats(const ExpertFormats& formats);

  ScorerParts parts_;
  ScorerSettings settings_;
  RequestDriver driver_;
  std::vector<size_t> chosen_;  // samples that run
  ExpertFormats formats_;       // that the model has
  int64_t num_scored_ = 0;
};

}  // namespace skipper
