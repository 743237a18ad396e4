#include "launcher/commands/measure_command.h"

#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <optional>

#include "base/error.h"
#include "engine/reference_file.h"
#include "evaluation/answers.h"
#include "evaluation/point_lines.h"
#include "evaluation/scored_samples.h"
#include "evaluation/skip_evaluator.h"
#include "launcher/command_options.h"
#include "launcher/engine_phase.h"
#include "launcher/progress_line.h"
#include "launcher/rank_process.h"
#include "launcher/startup_agreement.h"

namespace skipper {
namespace {

constexpr size_t kInFlightPerRank = 32;
constexpr const char* kStandardInput = "-";

// Every rank reads the samples: each knows by itself which references are its own.
ScoredSamples load_samples(const CommandLine& line, const RankProcess& process) {
  SampleLimits limits;
  if (line.limit >= 0) limits.samples = line.limit;
  if (line.text_windows >= 0) limits.text_windows = line.text_windows;
  ScoredSamples samples =
      load_scored_samples(line.data, limits, process.model_config().eos_token_ids, process.processor().tokenizer());
  for (ScoredSample& sample : samples.samples) sample.split = DataSplit::kSearch;
  return samples;
}

// Rank 0's view of the work.
class PointMeasurer {
 public:
  PointMeasurer(const CommandLine& line, RankProcess& process, Engine& engine, const ScoredSamples& samples,
                const StepTotals& totals)
      : line_(line),
        process_(process),
        samples_(samples),
        totals_(totals),
        evaluator_({engine, process.queue(), process.processor(), samples}, evaluator_settings()),
        driver_(engine, process.queue(), kInFlightPerRank * static_cast<size_t>(process.world_size())) {}

  void measure_reference(const std::string& origin) {
    ProgressLine progress("predictions of level 0");
    const Measurement reference = line_.reference.empty()
                                      ? evaluator_.measure_reference(DataSplit::kSearch, std::ref(progress))
                                      : evaluator_.compare_reference(DataSplit::kSearch, std::ref(progress));
    print(samples_line(samples_, reference.samples, origin));
  }

  void measure_points(std::istream& lines) {
    const ModelConfig& model = process_.model_config();
    const ModelIdentity identity{.fingerprint = model.fingerprint,
                                 .num_moe_layers = model.num_moe_layers(),
                                 .num_experts = static_cast<int>(model.moe.num_experts)};
    PointReader reader(lines, line_.points, identity, process_.world());
    print(to_line(measure(unskipped_levels(model.num_moe_layers()).levels[0])));
    while (const std::optional<PointLine> line = reader.next()) {
      if (line->formats) set_formats(*line->formats);
      print(to_line(measure(line->point ? *line->point : unskipped_levels(model.num_moe_layers()).levels[0])));
    }
  }

 private:
  EvaluatorSettings evaluator_settings() const {
    EvaluatorSettings settings{.num_ranks = process_.world_size(), .vocab_size = process_.model_config().vocab_size};
    settings.in_flight_per_rank = kInFlightPerRank;
    settings.reference_bytes_per_rank = reference_bytes_from(line_);
    return settings;
  }

  // Only layers that change are rounded anew.
  void set_formats(const ExpertFormats& formats) {
    if (process_.world_size() > 1 || !line_.plan.empty()) {
      throw Error(line_.points + ": expert_formats change the experts of one rank without a plan; leave out mpirun and --plan");
    }
    formats_.resize(formats.size());
    for (size_t layer = 0; layer < formats.size(); ++layer) {
      if (formats[layer] == formats_[layer]) continue;
      process_.model().set_expert_formats(static_cast<int>(layer), formats[layer], process_.workers());
      formats_[layer] = formats[layer];
    }
  }

  // Kind by kind, so that pairs and bytes are known of each.
  MeasuredLine measure(const OperatingPoint& point) {
    MeasuredLine measured{.point = point, .kinds = {}, .right = {}};
    for (size_t kind = 0; kind < kNumSampleKinds; ++kind) {
      const SampleSelection selection{.split = DataSplit::kSearch, .kinds = {static_cast<SampleKind>(kind)}};
      if (evaluator_.num_selected(selection) == 0) continue;
      measured.kinds[kind] = evaluator_.measure_samples(point, selection, totals_);
      if (line_.answers) measured.right[kind] = answer(measured.kinds[kind].samples);
    }
    return measured;
  }

  // At level 1, which is the point that was measured last.
  std::vector<uint8_t> answer(const Measurement& measured) {
    std::vector<EvalQuestion> questions;
    for (const SampleMeasurement& one : measured.samples) {
      const CalibrationSample& sample = samples_.samples[one.sample].sample;
      if (!sample.is_text()) questions.push_back(sample.question);
    }
    const AnswerSettings settings{.end_token_ids = samples_.end_token_ids, .level = 1};
    return answer_questions(questions, settings, process_.processor(), driver_, [](size_t, size_t) {});
  }

  static void print(const std::string& text) {
    std::cout << text << "\n" << std::flush;
    if (!std::cout) throw Error("standard output cannot be written; check its reader, or free space");
  }

  const CommandLine& line_;
  RankProcess& process_;
  const ScoredSamples& samples_;
  const StepTotals& totals_;
  SkipEvaluator evaluator_;
  RequestDriver driver_;
  ExpertFormats formats_;  // that lines have given; empty before the first
};

// What predictions depend on that a comparison must share: not the formats, which may be what is compared.
std::string origin_of(const ScoredSamples& samples, const RankProcess& process) {
  return "model " + process.model_config().fingerprint + ", data " + samples.hash;
}

void share_references(const CommandLine& line, const ScoredSamples& samples, RankProcess& process) {
  const RankOfGroup here{process.control().rank(), process.world_size()};
  const auto is_own = [&](uint64_t id) { return id % static_cast<uint64_t>(here.num_ranks) == static_cast<uint64_t>(here.rank); };
  run_together(process.startup(), [&] {
    const std::string origin = origin_of(samples, process);
    if (!line.save_reference.empty()) save_references(process.runner().references(), line.save_reference, origin, here);
    if (!line.reference.empty()) load_references(process.runner().references(), line.reference, origin, is_own);
  });
}

std::ifstream open_points(const CommandLine& line) {
  if (line.points == kStandardInput) return {};
  std::ifstream file(line.points);
  if (!file) throw InvalidFile(line.points + ": cannot be opened; check the path of --points");
  return file;
}

}  // namespace

int run_measure(const CommandLine& line) {
  RankProcess process([&] { return scoring_config_from(line); }, rank_options_from(line));
  ScoredSamples samples;
  std::ifstream points;
  run_together(process.startup(), [&] {
    samples = load_samples(line, process);
    if (process.is_leader()) points = open_points(line);
  });
  process.load();
  StepTotals totals;
  Engine& engine = process.start_engine([&](const StepReport& report) { totals.add(report); });
  std::optional<PointMeasurer> measurer;
  if (!line.reference.empty()) share_references(line, samples, process);
  run_phase(process, engine, [&] {
    measurer.emplace(line, process, engine, samples, totals);
    measurer->measure_reference(origin_of(samples, process));
  });
  if (!line.save_reference.empty()) share_references(line, samples, process);
  run_phase(process, engine, [&] { measurer->measure_points(line.points == kStandardInput ? std::cin : points); });
  return 0;
}

}  // namespace skipper
