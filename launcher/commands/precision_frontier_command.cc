#include "launcher/commands/precision_frontier_command.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <optional>

#include "base/error.h"
#include "evaluation/answers.h"
#include "evaluation/frontier_file.h"
#include "evaluation/precision_frontier.h"
#include "evaluation/precision_log.h"
#include "launcher/budget_planner.h"
#include "launcher/command_options.h"
#include "launcher/engine_phase.h"
#include "launcher/progress_line.h"
#include "launcher/rank_process.h"
#include "launcher/startup_agreement.h"
#include "machine/energy_meter.h"
#include "planning/memory_size.h"
#include "planning/plan_candidates.h"

namespace skipper {
namespace {

constexpr size_t kDefaultBudgets = 8;
constexpr int64_t kDefaultSamples = 320;     // a fifth is held out
constexpr int64_t kDefaultTextWindows = 32;  // of them
constexpr int32_t kDecodedTokens = 48;
constexpr int kDecodeRounds = 3;
constexpr size_t kInFlight = 32;

void ignore_progress(size_t, size_t) {}

// What is measured with; found out before anything takes long.
struct PrecisionFiles {
  ScoredSamples samples;
  std::vector<EvalQuestion> questions;  // of the held-out samples, thinned out like them
  std::optional<PrecisionLog> log;
};

void check_subject(const RankProcess& process, const CommandLine& line) {
  if (process.world_size() > 1) {
    throw Error("skipper frontier --precision measures on one rank, but " + std::to_string(process.world_size()) +
                " were started; run it without mpirun");
  }
  if (!process.model_config().quantization) return;
  throw Error(line.model + ": is quantised already, so nothing is left to plan; give its original");
}

std::string measurement_settings(const CommandLine& line, const ScoredSamples& samples, const RankProcess& process) {
  return "model " + process.model_config().fingerprint + " data " + samples.hash + " settings " + describe(process.config()) +
         " threads " + std::to_string(line.threads);
}

// Every so many, that as many are asked as samples are held out.
std::vector<EvalQuestion> thinned(const EvalData& data, size_t count) {
  std::vector<EvalQuestion> all = data.chat;
  all.insert(all.end(), data.vqa.begin(), data.vqa.end());
  std::vector<EvalQuestion> chosen;
  const size_t wanted = std::min(count, all.size());
  for (size_t i = 0; i < wanted; ++i) chosen.push_back(all[i * all.size() / wanted]);
  return chosen;
}

PrecisionFiles open_files(const CommandLine& line, const RankProcess& process) {
  check_subject(process, line);
  require_writable(line.out);
  if (!line.html.empty()) require_writable(line.html);
  PrecisionFiles files;
  const SampleLimits limits{.samples = line.limit >= 0 ? line.limit : kDefaultSamples,
                            .text_windows = line.text_windows >= 0 ? line.text_windows : kDefaultTextWindows};
  files.samples = load_scored_samples(line.data, limits, process.model_config().eos_token_ids, process.processor().tokenizer());
  files.questions = thinned(load_eval_data(line.data), num_samples_of(files.samples, DataSplit::kHeldOut));
  files.log.emplace(line.out + ".partial", measurement_settings(line, files.samples, process));
  if (files.log->num_taken_over() > 0) {
    std::fprintf(stderr, "going on with %zu measurements of %s.partial\n", files.log->num_taken_over(), line.out.c_str());
  }
  return files;
}

// The points of a sweep with what they are predicted to do.
class PointPlanner {
 public:
  PointPlanner(const std::filesystem::path& directory, const ModelConfig& model, const ServerConfig& config,
               const BudgetOptions& options)
      : model_(model), planner_({directory, model, 1, ComputePlace::kHost}, config, options) {
    const TierBudget host = problem_of(planner_.request()).ranks[0].tiers.at(MemoryTier::kHost);
    fixed_bytes_ = host.use.fixed_bytes();
  }

  std::vector<PrecisionPoint> points(const std::vector<size_t>& memories) const {
    std::vector<PrecisionPoint> all;
    for (const size_t memory : memories.empty() ? even_memories() : memories) {
      PrecisionPoint point = point_of(planner_.request(), memory);
      point.name = memory_text(memory);
      all.push_back(std::move(point));
    }
    for (const WeightFormat& format : formats()) {
      PrecisionPoint point = uniform_point(format);
      point.source = PrecisionSource::kUniform;
      point.name = name_of(format);
      all.push_back(std::move(point));
    }
    return all;
  }

  const PlanRequest& request() const { return planner_.request(); }

 private:
  std::vector<WeightFormat> formats() const {
    std::vector<WeightFormat> all = request().profile.formats;
    all.push_back({});
    return all;
  }

  size_t bytes_of_all(const WeightFormat& format) const {
    const auto count = static_cast<size_t>(model_.num_moe_layers() * model_.moe.num_experts);
    return count * expert_bytes_in(model_, format, ComputePlace::kHost);
  }

  // From a little more than the smallest format takes to the room for unrounded experts: by equal factors, since small ones
  // differ most.
  std::vector<size_t> even_memories() const {
    size_t smallest = std::numeric_limits<size_t>::max();
    for (const WeightFormat& format : formats()) smallest = std::min(smallest, bytes_of_all(format));
    const auto low = static_cast<double>(smallest), high = static_cast<double>(bytes_of_all({}));
    std::vector<size_t> memories;
    for (size_t i = 0; i < kDefaultBudgets; ++i) {
      const double share = (static_cast<double>(i) + 0.25) / (static_cast<double>(kDefaultBudgets) - 0.75);
      memories.push_back(fixed_bytes_ + static_cast<size_t>(low * std::pow(high / low, share)) + 1);
    }
    return memories;
  }

  PrecisionPoint point_of(const PlanRequest& asked, size_t memory) const {
    PlanRequest request = asked;
    request.memory = {memory};
    const ExpertPlan plan = plan_for(request);
    PrecisionPoint point;
    point.memory_bytes = memory;
    point.expert_bytes = plan.ranks[0].tiers.at(MemoryTier::kHost).use.expert_bytes();
    point.expert_bits = plan.predicted.expert_bits;
    point.bytes_per_token = plan.predicted.bytes_per_token;
    point.formats = serving_formats(plan, model_);
    point.predicted = {.loss = plan.predicted.loss, .tokens_per_second = 1.0 / plan.predicted.seconds_per_token};
    return point;
  }

  // A plan with no other choice, in exactly the memory that it takes.
  PrecisionPoint uniform_point(const WeightFormat& format) const {
    const PrecisionProfile only = only_format(request().profile, format);
    PlanRequest asked{.model = model_, .profile = only, .settings = request().settings, .place = request().place};
    asked.rates = request().rates;
    PrecisionPoint point = point_of(asked, fixed_bytes_ + bytes_of_all(format));
    return point;
  }

  // Unrounded experts do not fit beside a format that fills the memory.
  static PrecisionProfile only_format(const PrecisionProfile& profile, const WeightFormat& format) {
    if (!format.is_integer()) return profile;
    const auto index = static_cast<size_t>(std::ranges::find(profile.formats, format) - profile.formats.begin());
    return restricted_to(profile, index, index);
  }

  const ModelConfig& model_;
  BudgetPlanner planner_;
  size_t fixed_bytes_ = 0;
};

// Measures formats on a loaded model; rank 0's engine.
class PointMeter {
 public:
  PointMeter(const PrecisionFiles& files, RankProcess& process, Engine& engine, int64_t reference_bytes)
      : files_(files),
        process_(process),
        engine_(engine),
        scorer_({engine, process.queue(), process.processor(), files.samples, process.model(), process.workers()},
                {.split = DataSplit::kHeldOut, .reference_bytes = reference_bytes}) {}

  void keep_reference() { scorer_.keep_reference(ProgressLine("unrounded, samples")); }

  PrecisionMeasurement measure(const ExpertFormats& formats) {
    const FormatScorer::Score score = scorer_.score(formats);
    PrecisionMeasurement measured{.kl = score.kl, .perplexity = score.text_perplexity, .joules_per_token = std::nullopt};
    answer(measured);
    decode(measured);
    return measured;
  }

 private:
  void answer(PrecisionMeasurement& measured) {
    RequestDriver driver(engine_, process_.queue(), kInFlight);
    const AnswerSettings settings{.end_token_ids = process_.model_config().eos_token_ids};
    const std::vector<uint8_t> right =
        answer_questions(files_.questions, settings, process_.processor(), driver, ignore_progress);
    measured.right = std::ranges::count(right, uint8_t{1});
    measured.questions = static_cast<int64_t>(right.size());
  }

  // One stream; the best of some rounds, as other programs only take time. The first token waits for its prompt and is not
  // counted.
  void decode(PrecisionMeasurement& measured) {
    double best = std::numeric_limits<double>::infinity();
    EnergyMeter meter;
    for (int round = 0; round < kDecodeRounds; ++round) {
      const double one = seconds_of(1), all = seconds_of(kDecodedTokens);
      best = std::min(best, std::max(all - one, 1e-9) / (kDecodedTokens - 1));
    }
    measured.tokens_per_second = 1.0 / best;
    const auto joules = meter.take_joules();
    if (joules) measured.joules_per_token = *joules / (kDecodeRounds * (kDecodedTokens + 1));
  }

  double seconds_of(int32_t num_tokens) {
    RequestDriver driver(engine_, process_.queue(), 1);
    const auto start = std::chrono::steady_clock::now();
    driver.run(
        1,
        [&](size_t) {
          GenerationRequest request;
          request.prompt_ids = {0, 1, 2, 3};
          request.max_new_tokens = num_tokens;
          request.sampling.temperature = 0.0f;
          return request;
        },
        ignore_progress);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    return elapsed.count();
  }

  const PrecisionFiles& files_;
  RankProcess& process_;
  Engine& engine_;
  FormatScorer scorer_;
};

void measure_points(PrecisionFiles& files, PointMeter& meter, std::vector<PrecisionPoint>& points) {
  meter.keep_reference();
  ProgressLine progress("precision frontier, points");
  for (size_t i = 0; i < points.size(); ++i) {
    PrecisionPoint& point = points[i];
    const auto known = files.log->find(point.formats);
    point.measured = known ? *known : meter.measure(point.formats);
    if (!known) files.log->add(point.formats, point.measured);
    progress(i + 1, points.size());
  }
}

// "demo" of "models/demo/".
std::string name_of_path(const std::filesystem::path& path) {
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

std::vector<size_t> memories_from(const CommandLine& line) {
  return line.memory.empty() ? std::vector<size_t>() : parse_memory_sizes(line.memory, "flag --memory");
}

}  // namespace

int run_precision_frontier(const CommandLine& line) {
  RankOptions process_options = rank_options_from(line);
  process_options.budgets = {};  // the sweep's, none that is loaded
  RankProcess process([&] { return scoring_config_from(line); }, process_options);
  PrecisionFiles files;
  std::vector<PrecisionPoint> points;
  std::optional<PointPlanner> planner;
  const std::filesystem::path directory = line.model;
  BudgetOptions options = budget_options_from(line);
  options.memory = "0";
  run_together(process.startup(), [&] {
    files = open_files(line, process);
    planner.emplace(directory, process.model_config(), server_config_from(line), options);
    points = planner->points(memories_from(line));
  });
  process.load();
  Engine& engine = process.start_engine(nullptr);
  PointMeter meter(files, process, engine, reference_bytes_from(line));
  run_phase(process, engine, [&] { measure_points(files, meter, points); });
  const PlanRequest& request = planner->request();
  const PrecisionOrigin origin{
      .model = name_of_path(line.model), .model_fingerprint = process.model_config().fingerprint,
      .data = name_of_path(line.data), .data_hash = files.samples.hash,
      .profile = request.profile.basis == ProfileBasis::kMeasured ? "measured" : "analytic", .rates = request.rates.source};
  write_file_atomically(line.out, to_json(points, origin));
  if (!line.html.empty()) write_file_atomically(line.html, to_page(points, origin));
  files.log->remove();
  std::fputs(precision_table(points).c_str(), stdout);
  return 0;
}

}  // namespace skipper
