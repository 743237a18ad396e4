#include "evaluation/skip_evaluator.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace skipper {
namespace {

constexpr int64_t kBytesPerMegabyte = 1'000'000;

template <typename T, typename Field>
T sum_over(const std::vector<SampleMeasurement>& samples, Field field) {
  T sum{};
  for (const SampleMeasurement& sample : samples) sum += sample.*field;
  return sum;
}

void ignore_progress(size_t, size_t) {}

SampleMeasurement measurement_of(size_t sample, const DrivenResult& result) {
  return {sample, result.distance.kl, result.prompt_nll, result.distance.num_flips, result.num_scored, result.usage};
}

void require_numbers(const Measurement& reference, const ScoredSamples& samples) {
  if (reference.samples.empty()) {
    throw InvalidFile(samples.path.string() + ": no sample fits into the context; give shorter ones, or more of them");
  }
  if (std::isfinite(reference.nll())) return;
  throw Error("the unskipped model predicts " + std::to_string(reference.nll()) + " nats on " + samples.path.string() +
              "; check the model with 'skipper eval'");
}

}  // namespace

double Measurement::kl() const { return sum_over<double>(samples, &SampleMeasurement::kl); }
double Measurement::nll() const { return sum_over<double>(samples, &SampleMeasurement::nll); }
int64_t Measurement::num_flips() const { return sum_over<int64_t>(samples, &SampleMeasurement::num_flips); }
int64_t Measurement::num_scored() const { return sum_over<int64_t>(samples, &SampleMeasurement::num_scored); }
SkipUsage Measurement::usage() const { return sum_over<SkipUsage>(samples, &SampleMeasurement::usage); }

double Measurement::mean_kl() const {
  const int64_t count = num_scored();
  return count > 0 ? kl() / static_cast<double>(count) : 0.0;
}

bool SampleSelection::takes(const ScoredSample& sample) const {
  return sample.split == split && std::find(kinds.begin(), kinds.end(), sample.kind) != kinds.end();
}

void StepTotals::add(const StepReport& report) {
  traffic += report.traffic;
  if (report.num_tokens == 0) return;
  seconds += report.step_seconds;
  ++num_steps;
}

// Samples times levels, sample by sample.
struct SkipEvaluator::Run {
  std::vector<size_t> samples;
  uint8_t first_level = 0;
  size_t num_levels = 1;
  ReferenceUse reference = ReferenceUse::kNone;

  size_t num_requests() const { return samples.size() * num_levels; }
};

SkipEvaluator::SkipEvaluator(const EvaluatorParts& parts, const EvaluatorSettings& settings)
    : parts_(parts),
      settings_(settings),
      driver_(parts.engine, parts.queue, settings.in_flight_per_rank * static_cast<size_t>(settings.num_ranks)),
      is_left_out_(parts.samples.samples.size(), 0) {
  std::vector<int64_t> rows(static_cast<size_t>(settings.num_ranks), 0);
  for (size_t i = 0; i < parts.samples.samples.size(); ++i) {
    rows[i % rows.size()] += parts.samples.samples[i].num_scored;
  }
  const int64_t most_rows = *std::max_element(rows.begin(), rows.end());
  require_memory(most_rows * settings.vocab_size * static_cast<int64_t>(sizeof(float)));
}

void SkipEvaluator::require_memory(int64_t bytes_per_rank) const {
  if (bytes_per_rank <= settings_.reference_bytes_per_rank) return;
  throw ResourceExhausted("the unskipped predictions take " + std::to_string(bytes_per_rank / kBytesPerMegabyte) +
                          " MB on a rank, more than the " +
                          std::to_string(settings_.reference_bytes_per_rank / kBytesPerMegabyte) +
                          " MB of --reference_memory; raise it, start more ranks, or take fewer samples with --limit");
}

std::vector<size_t> SkipEvaluator::selected(const SampleSelection& selection) const {
  std::vector<size_t> chosen;
  for (size_t i = 0; i < parts_.samples.samples.size(); ++i) {
    if (selection.takes(parts_.samples.samples[i]) && is_left_out_[i] == 0) chosen.push_back(i);
  }
  return chosen;
}

GenerationRequest SkipEvaluator::request_for(size_t sample) {
  if (sample != ready_sample_) {
    ready_ = scoring_request(parts_.samples.samples[sample].sample, parts_.samples.end_token_ids, parts_.processor);
    ready_sample_ = sample;
    ready_.reference_id = sample;
    ready_.rank = static_cast<int32_t>(sample % static_cast<size_t>(settings_.num_ranks));
  }
  return ready_;
}

std::vector<Measurement> SkipEvaluator::run(const Run& run, const ProgressCallback& progress) {
  const auto make = [&](size_t index) {
    GenerationRequest request = request_for(run.samples[index / run.num_levels]);
    request.level = static_cast<uint8_t>(run.first_level + index % run.num_levels);
    request.reference = run.reference;
    return request;
  };
  const std::vector<DrivenResult> results = driver_.run(run.num_requests(), make, progress);
  std::vector<Measurement> measurements(run.num_levels);
  for (size_t index = 0; index < results.size(); ++index) {
    measurements[index % run.num_levels].samples.push_back(
        measurement_of(run.samples[index / run.num_levels], results[index]));
  }
  return measurements;
}

Measurement SkipEvaluator::measure_reference(DataSplit split, const ProgressCallback& progress) {
  return run_unskipped(split, ReferenceUse::kKeep, progress);
}

Measurement SkipEvaluator::compare_reference(DataSplit split, const ProgressCallback& progress) {
  return run_unskipped(split, ReferenceUse::kCompare, progress);
}

Measurement SkipEvaluator::run_unskipped(DataSplit split, ReferenceUse use, const ProgressCallback& progress) {
  const SampleSelection selection{.split = split};
  const auto longest = static_cast<size_t>(parts_.engine.config().max_model_len);
  for (const size_t i : selected(selection)) {
    if (request_for(i).prompt_ids.size() <= longest) continue;
    is_left_out_[i] = 1;
    ++num_too_long_;
  }
  const Run unskipped{.samples = selected(selection), .reference = use};
  Measurement reference = std::move(run(unskipped, progress).front());
  require_numbers(reference, parts_.samples);
  has_reference_[static_cast<size_t>(split)] = true;
  return reference;
}

std::vector<Measurement> SkipEvaluator::evaluate(std::span<const OperatingPoint> points, const SampleSelection& selection,
                                                 const ProgressCallback& progress) {
  CHECK(has_reference_[static_cast<size_t>(selection.split)]) << "measure_reference() comes first";
  if (points.empty()) return {};
  LevelTable table = unskipped_levels(static_cast<int>(points.front().alpha[0].size()));
  table.levels.insert(table.levels.end(), points.begin(), points.end());
  parts_.engine.set_levels(std::move(table));
  Run compare{selected(selection), 1, points.size(), ReferenceUse::kCompare};
  return run(compare, progress);
}

PointMeasurement SkipEvaluator::measure_point(const OperatingPoint& point, DataSplit split, const StepTotals& totals) {
  if (!has_reference_[static_cast<size_t>(split)]) measure_reference(split, ignore_progress);
  return measure_samples(point, {.split = split}, totals).sums;
}

PointSamples SkipEvaluator::measure_samples(const OperatingPoint& point, const SampleSelection& selection,
                                            const StepTotals& totals) {
  const StepTotals before = totals;
  Measurement measured = std::move(evaluate({&point, 1}, selection, ignore_progress).front());
  PointMeasurement result{.kl = measured.kl(), .num_flips = measured.num_flips(), .num_scored = measured.num_scored()};
  const TrafficCounters traffic = totals.traffic - before.traffic;
  result.pairs_run = traffic.pairs_run;
  result.pairs_skipped = traffic.pairs_skipped;
  for (size_t direction = 0; direction < kNumDirections; ++direction) {
    for (size_t hop = 0; hop < kNumHops; ++hop) {
      for (size_t c = 0; c < kNumTokenClasses; ++c) {
        result.bytes_sent[hop] += traffic.payload_bytes[direction][hop][c];
        result.bytes_saved[hop] += traffic.saved_bytes[direction][hop][c];
      }
    }
  }
  result.seconds = totals.seconds - before.seconds;
  result.num_steps = totals.num_steps - before.num_steps;
  return {std::move(measured), result};
}

}  // namespace skipper
