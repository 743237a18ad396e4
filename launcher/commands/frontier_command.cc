#include "launcher/commands/frontier_command.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <optional>
#include <span>

#include "base/error.h"
#include "evaluation/calibration_scores.h"
#include "evaluation/frontier_file.h"
#include "evaluation/frontier_page.h"
#include "evaluation/frontier_run.h"
#include "evaluation/measurement_cache.h"
#include "evaluation/scored_samples.h"
#include "evaluation/skip_evaluator.h"
#include "launcher/command_options.h"
#include "launcher/progress_line.h"
#include "launcher/rank_process.h"
#include "launcher/startup_agreement.h"

namespace skipper {
namespace {

constexpr int kDefaultGrid = 24;
constexpr int kDefaultDestinationGrid = 3;
constexpr int kDefaultGeneratedSteps = 0;
constexpr int kDefaultShadowGrid = 3;

FrontierSettings settings_from(const CommandLine& line) {
  try {
    FrontierSettings settings;
    settings.objective = parse_objective(line.objective.empty() ? "pairs" : line.objective);
    settings.methods = parse_methods(line.methods);
    settings.targets = ladder_targets();
    settings.grid = line.grid < 0 ? kDefaultGrid : line.grid;
    if (settings.grid < 1) throw InvalidRequest("grid: 0 thresholds leave nothing to search; give at least 1", "grid");
    const int by_objective = settings.objective == FrontierObjective::kPairs ? 0 : kDefaultDestinationGrid;
    settings.num_destination_thresholds = line.destination_grid < 0 ? by_objective : line.destination_grid;
    settings.num_generated_steps = line.generated_steps < 0 ? kDefaultGeneratedSteps : line.generated_steps;
    return settings;
  } catch (const InvalidRequest& error) {
    throw UsageError(std::string("flag --") + error.what());
  }
}

// What rank 0 needs besides the model; found out before anything takes long.
struct FrontierFiles {
  ScoredSamples samples;
  CalibrationScores calibration;
  std::optional<ExpertRatings> ratings;
  std::optional<MeasurementCache> cache;
};

// Answers alone: one window of text would have the tokens of a hundred of them.
SampleLimits sample_limits(const CommandLine& line) {
  SampleLimits limits{.text_windows = 0};
  if (line.limit >= 0) limits.samples = line.limit;
  return limits;
}

// Everything that a measurement depends on besides its point.
std::string measurement_settings(const ScoredSamples& samples, const RankProcess& process) {
  std::string settings = "model " + process.model_config().fingerprint + " data " + samples.hash + " ranks " +
                         std::to_string(process.world_size()) + " settings " + describe(process.config());
  if (!process.plan_text().empty()) settings += " plan " + std::to_string(std::hash<std::string>()(process.plan_text()));
  return settings;
}

FrontierFiles open_files(const CommandLine& line, const RankProcess& process) {
  const ModelConfig& model = process.model_config();
  FrontierFiles files;
  files.calibration = load_calibration_scores(line.calibration, {model.fingerprint, model.num_moe_layers()});
  if (!line.ratings.empty()) {
    const auto num_experts = static_cast<int>(model.moe.num_experts);
    files.ratings = load_expert_ratings(line.ratings, {model.fingerprint, model.num_moe_layers(), num_experts});
  }
  files.samples = load_scored_samples(line.data, sample_limits(line), model.eos_token_ids, process.processor().tokenizer());
  if (num_samples_of(files.samples, DataSplit::kHeldOut) == 0) {
    throw InvalidFile(line.data + ": " + std::to_string(files.samples.samples.size()) +
                      " question(s) are too few to hold some out; give at least " + std::to_string(kHeldOutEvery) + " of a kind");
  }
  require_writable(line.out);
  if (!line.html.empty()) require_writable(line.html);
  files.cache.emplace(line.out + ".partial", measurement_settings(files.samples, process));
  if (files.cache->num_taken_over() > 0) {
    std::fprintf(stderr, "going on with %zu measurements of %s.partial\n", files.cache->num_taken_over(), line.out.c_str());
  }
  return files;
}

MethodInputs method_inputs(const FrontierFiles& files, const ModelConfig& model) {
  MethodInputs inputs;
  inputs.calibrated = files.calibration.calibrated;
  inputs.equal = files.calibration.equal;
  inputs.ratings = files.ratings;
  inputs.top_k = static_cast<int>(model.moe.top_k);
  return inputs;
}

// Rank 0's engine, with what its steps have cost so far.
struct LedEngine {
  Engine& engine;
  const StepTotals& totals;
};

// Answers from the cache what it knows, and lets it remember the rest.
PointEvaluator cached_evaluator(MeasurementCache& cache, SkipEvaluator& evaluator, const StepTotals& totals) {
  return [&](const OperatingPoint& point, DataSplit split) {
    if (const auto known = cache.find(point, split)) return *known;
    const PointMeasurement measured = evaluator.measure_point(point, split, totals);
    cache.add(point, split, measured);
    return measured;
  };
}

// The largest of any rank; 0 where there are no shadows.
float shadow_error_of(const ExpertPlacement& placement) {
  float largest = 0.0f;
  for (int rank = 0; rank < placement.world_size() && placement.has_shadows(); ++rank) {
    for (int layer = 0; layer < placement.num_moe_layers(); ++layer) {
      const std::span<const ExpertHome> homes = placement.homes_seen_from(rank, layer);
      const std::span<const float> errors = placement.shadow_errors(rank, layer);
      for (size_t expert = 0; expert < errors.size(); ++expert) {
        if (homes[errors.size() + expert].slot >= 0) largest = std::max(largest, errors[expert]);
      }
    }
  }
  return largest;
}

// Shadows skip no pair, but save bytes and time.
void search_shadows(const CommandLine& line, const ExpertPlacement& placement, FrontierSettings& frontier) {
  frontier.shadow_error = shadow_error_of(placement);
  const bool can_search = frontier.shadow_error > 0.0f && frontier.objective != FrontierObjective::kPairs;
  frontier.num_shadow_thresholds = line.shadow_grid >= 0 ? line.shadow_grid : can_search ? kDefaultShadowGrid : 0;
  if (frontier.num_shadow_thresholds == 0 || can_search) return;
  throw Error("flag --shadow_grid: " + std::to_string(line.shadow_grid) + " thresholds need shadow copies, but " + line.plan +
              " has none; make the plan with 'skipper plan --shadow_format'");
}

void leave_out_methods_by_ratings(FrontierSettings& frontier) {
  for (const std::string& name : remove_methods_by_ratings(frontier.methods)) {
    std::fprintf(stderr, "method %s is left out: it needs --ratings FILE of 'skipper experts'\n", name.c_str());
  }
}

FrontierResult search(const CommandLine& line, FrontierFiles& files, RankProcess& process, const LedEngine& led) {
  EvaluatorSettings settings{.num_ranks = process.world_size(), .vocab_size = process.model_config().vocab_size};
  settings.reference_bytes_per_rank = reference_bytes_from(line);
  SkipEvaluator evaluator({led.engine, process.queue(), process.processor(), files.samples}, settings);
  FrontierSettings frontier = settings_from(line);
  frontier.methods = methods_for_ranks(std::move(frontier.methods), process.world_size());
  if (!files.ratings) leave_out_methods_by_ratings(frontier);
  search_shadows(line, process.model().placement(), frontier);
  std::fprintf(stderr, "searching on %zu samples, measuring on %zu held out\n",
               num_samples_of(files.samples, DataSplit::kSearch), num_samples_of(files.samples, DataSplit::kHeldOut));
  ProgressLine progress("frontier, passes over the data");
  return run_frontier(method_inputs(files, process.model_config()), frontier,
                      cached_evaluator(*files.cache, evaluator, led.totals), std::ref(progress));
}

void print_report(const FrontierResult& result) {
  std::printf("level  pairs skipped %%  KL (nats)   top-1 flips %%  bytes saved %%  step ms\n");
  for (size_t i = 0; i < result.ladder.size(); ++i) {
    const PointMeasurement& m = result.ladder[i].held_out;
    std::printf("%5zu  %15.1f  %9.6f  %14.2f  %13.1f  %7.2f\n", i, 100.0 * m.skip_ratio(), m.mean_kl(), 100.0 * m.flip_ratio(),
                100.0 * m.saved_bytes_ratio(), 1e3 * m.step_seconds());
  }
  const StepTimeModel& time = result.step_time;
  std::printf("step time: %.3f ms + %.3g ns per pair + %.3g ns per byte, error %.1f %%\n", 1e3 * time.base_seconds,
              1e9 * time.seconds_per_pair, 1e9 * time.seconds_per_byte, 100.0 * time.relative_error);
  std::printf("%d points searched; %d points dropped that another beats\n", result.num_search_points, result.num_beaten);
  if (!result.is_monotone) {
    std::printf("note: loss or gain fell with a higher threshold somewhere, so a level may not be the best of the grid\n");
  }
}

// "demo" of "models/demo/".
std::string name_of(const std::filesystem::path& path) {
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

void write_results(const CommandLine& line, const FrontierResult& result, RankProcess& process) {
  const PlacementWorld world = placement_world(process.topology());
  const FrontierOrigin origin{process.model_config().fingerprint, world};
  write_file_atomically(line.out, to_json(result, origin));
  if (line.html.empty()) return;
  write_file_atomically(line.html, to_page(result, {name_of(line.model), name_of(line.data), world.ranks}));
}

void lead(const CommandLine& line, FrontierFiles& files, RankProcess& process, const LedEngine& led) {
  FrontierResult result;
  try {
    result = search(line, files, process, led);
  } catch (const CommError&) {
    throw;
  } catch (const Error&) {
    // The other ranks still wait for a plan; let them leave in order.
    led.engine.finish();
    throw;
  }
  led.engine.finish();
  write_results(line, result, process);
  files.cache->remove();
  print_report(result);
}

}  // namespace

int run_frontier_command(const CommandLine& line) {
  settings_from(line);
  RankProcess process([&] { return scoring_config_from(line); }, rank_options_from(line));
  FrontierFiles files;
  run_together(process.startup(), [&] {
    if (process.is_leader()) files = open_files(line, process);
  });
  process.load();
  StepTotals totals;
  Engine& engine = process.start_engine([&](const StepReport& report) { totals.add(report); });
  if (process.is_leader()) {
    lead(line, files, process, {engine, totals});
  } else {
    engine.run();
  }
  return 0;
}

}  // namespace skipper
