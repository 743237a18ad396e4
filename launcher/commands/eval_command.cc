#include "launcher/commands/eval_command.h"

#include <glog/logging.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <optional>
#include <vector>

#include "base/error.h"
#include "evaluation/answers.h"
#include "evaluation/distance_report.h"
#include "evaluation/eval_data.h"
#include "evaluation/eval_report.h"
#include "evaluation/perplexity.h"
#include "evaluation/scored_samples.h"
#include "evaluation/skip_evaluator.h"
#include "launcher/command_options.h"
#include "launcher/progress_line.h"
#include "launcher/rank_process.h"
#include "launcher/startup_agreement.h"

namespace skipper {
namespace {

constexpr int64_t kWindowTokens = 512;
constexpr size_t kInFlightPerRank = 32;

// What rank 0 needs besides the model; found out before anything takes long.
struct EvalFiles {
  EvalData data;
  std::optional<ScoredSamples> scored;  // with --kl
  std::ofstream json;
};

// The same samples at level 0 and at the level, token by token; the table of levels is another afterwards.
DistanceReport measure_distance(const ScoredSamples& samples, RankProcess& process, Engine& engine) {
  const OperatingPoint point = process.levels().levels[process.level()];
  const EvaluatorSettings settings{.num_ranks = process.world_size(), .vocab_size = process.model_config().vocab_size};
  SkipEvaluator evaluator({engine, process.queue(), process.processor(), samples}, settings);
  std::vector<SampleMeasurement> measured;
  for (const DataSplit split : {DataSplit::kSearch, DataSplit::kHeldOut}) {
    if (num_samples_of(samples, split) == 0) continue;
    ProgressLine reference("predictions of level 0");
    evaluator.measure_reference(split, std::ref(reference));
    ProgressLine progress("distance from level 0");
    const Measurement part = evaluator.evaluate({&point, 1}, {.split = split}, std::ref(progress)).front();
    measured.insert(measured.end(), part.samples.begin(), part.samples.end());
  }
  return distance_report(samples, measured);
}

EvalReport evaluate(const EvalFiles& files, RankProcess& process, Engine& engine) {
  const EvalData& data = files.data;
  RequestDriver driver(engine, process.queue(), kInFlightPerRank * static_cast<size_t>(process.world_size()));
  EvalReport report;
  report.level = process.level();
  report.rows_travelled = process.config().dispatch.rows_travel();
  for (const EvalText& text : data.texts) {
    const std::vector<int32_t> tokens = process.processor().tokenizer().encode(text.text, SpecialTokens::kParse);
    ProgressLine progress(text.name);
    report.perplexity[text.name] = measure_perplexity(tokens, kWindowTokens, process.level(), driver, std::ref(progress));
  }
  const AnswerSettings settings{.end_token_ids = process.model_config().eos_token_ids, .level = process.level()};
  ProgressLine vqa_progress("visual questions");
  report.vqa = measure_answers(data.vqa, settings, process.processor(), driver, std::ref(vqa_progress));
  ProgressLine chat_progress("chat questions");
  report.chat = measure_answers(data.chat, settings, process.processor(), driver, std::ref(chat_progress));
  report.traffic = engine.total_traffic();
  if (files.scored) report.distance = measure_distance(*files.scored, process, engine);
  return report;
}

void warn_of_withheld_payload(const RankProcess& process) {
  if (!process.is_leader() || process.config().dispatch.rows_travel()) return;
  LOG(WARNING) << "dispatch.payload=off: hidden rows stay on their ranks; all results but bytes and pairs are meaningless";
}

void check_writable(const std::ofstream& file, const std::string& path) {
  if (!file) throw Error(path + ": cannot be written; check the folder and its permissions");
}

EvalFiles open_files(const CommandLine& line, const RankProcess& process) {
  const ServerConfig& config = process.config();
  EvalFiles files;
  files.data = load_eval_data(line.data);
  if (!files.data.texts.empty() && config.engine.max_model_len < kWindowTokens) {
    throw Error("perplexity takes windows of " + std::to_string(kWindowTokens) + " tokens, but max_model_len is " +
                std::to_string(config.engine.max_model_len) + "; raise it, engine.kv_blocks_per_rank, or leave the texts out");
  }
  if (line.kl) {
    if (process.level() == 0) throw Error("--kl compares a level with level 0; give --operating_point and --level");
    files.scored = load_scored_samples(line.data, {}, process.model_config().eos_token_ids, process.processor().tokenizer());
  }
  if (!line.json.empty()) files.json.open(line.json);
  check_writable(files.json, line.json);
  return files;
}

// `disks` is what the last step has told.
void lead(const CommandLine& line, EvalFiles& files, RankProcess& process, Engine& engine,
          const std::vector<DiskReading>& disks) {
  EvalReport report;
  try {
    report = evaluate(files, process, engine);
  } catch (const CommError&) {
    throw;
  } catch (const Error&) {
    // The other ranks still wait for a plan; let them leave in order.
    engine.finish();
    throw;
  }
  engine.finish();
  report.disks = disks;
  std::cerr << to_table(report);
  if (line.json.empty()) return;
  files.json << to_json(report) << "\n" << std::flush;
  check_writable(files.json, line.json);
}

}  // namespace

int run_eval(const CommandLine& line) {
  RankProcess process([&] { return scoring_config_from(line); }, rank_options_from(line));
  EvalFiles files;
  run_together(process.startup(), [&] {
    if (process.is_leader()) files = open_files(line, process);
  });
  warn_of_withheld_payload(process);
  process.load();
  std::vector<DiskReading> disks;
  const auto keep_disks = [&](const StepReport& report) { disks.assign(report.disks.begin(), report.disks.end()); };
  Engine& engine = process.start_engine(keep_disks);
  if (process.is_leader()) {
    lead(line, files, process, engine, disks);
  } else {
    engine.run();
  }
  return 0;
}

}  // namespace skipper
