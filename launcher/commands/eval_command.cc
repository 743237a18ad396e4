#include "launcher/commands/eval_command.h"

#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>

#include "base/error.h"
#include "evaluation/answers.h"
#include "evaluation/eval_data.h"
#include "evaluation/eval_report.h"
#include "evaluation/perplexity.h"
#include "launcher/command_options.h"
#include "launcher/progress_line.h"
#include "launcher/rank_process.h"
#include "launcher/startup_agreement.h"

namespace skipper {
namespace {

constexpr int64_t kWindowTokens = 512;
constexpr size_t kInFlightPerRank = 32;

// Evaluation needs no answers in between, so it takes larger steps than a server, with logits for every token.
ServerConfig evaluation_config(const CommandLine& line) {
  ServerConfig config = server_config_from(line);
  config.engine.max_logit_rows = std::max(config.engine.max_logit_rows, config.engine.max_tokens_per_step);
  return config;
}

EvalReport evaluate(const EvalData& data, RankProcess& process, Engine& engine) {
  RequestDriver driver(engine, process.queue(), kInFlightPerRank * static_cast<size_t>(process.world_size()));
  EvalReport report;
  report.level = process.level();
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
  return report;
}

// What rank 0 needs besides the model; found out before anything takes long.
struct EvalFiles {
  EvalData data;
  std::ofstream json;
};

void check_writable(const std::ofstream& file, const std::string& path) {
  if (!file) throw Error(path + ": cannot be written; check the folder and its permissions");
}

EvalFiles open_files(const CommandLine& line, const ServerConfig& config) {
  EvalFiles files;
  files.data = load_eval_data(line.data);
  if (!files.data.texts.empty() && config.engine.max_model_len < kWindowTokens) {
    throw Error("perplexity takes windows of " + std::to_string(kWindowTokens) + " tokens, but max_model_len is " +
                std::to_string(config.engine.max_model_len) + "; raise it, engine.kv_blocks_per_rank, or leave the texts out");
  }
  if (!line.json.empty()) files.json.open(line.json);
  check_writable(files.json, line.json);
  return files;
}

void lead(const CommandLine& line, EvalFiles& files, RankProcess& process, Engine& engine) {
  EvalReport report;
  try {
    report = evaluate(files.data, process, engine);
  } catch (const CommError&) {
    throw;
  } catch (const Error&) {
    // The other ranks still wait for a plan; let them leave in order.
    engine.finish();
    throw;
  }
  engine.finish();
  std::cerr << to_table(report);
  if (line.json.empty()) return;
  files.json << to_json(report) << "\n" << std::flush;
  check_writable(files.json, line.json);
}

}  // namespace

int run_eval(const CommandLine& line) {
  RankProcess process([&] { return evaluation_config(line); }, rank_options_from(line));
  EvalFiles files;
  run_together(process.startup(), [&] {
    if (process.is_leader()) files = open_files(line, process.config());
  });
  process.load();
  Engine& engine = process.start_engine(nullptr);
  if (process.is_leader()) {
    lead(line, files, process, engine);
  } else {
    engine.run();
  }
  return 0;
}

}  // namespace skipper
