#include "evaluation/calibration_data.h"

#include <algorithm>

#include "base/error.h"
#include "evaluation/question_prompt.h"

namespace skipper {
namespace {

namespace fs = std::filesystem;

// Pictures of this many samples are in memory at once.
constexpr size_t kSamplesAtOnce = 32;

EvalData load_files(const fs::path& path) {
  if (fs::is_directory(path)) return load_eval_data(path);
  EvalData data;
  if (path.extension() == ".txt") {
    data.texts.push_back({path.stem().string(), read_file(path)});
  } else {
    data.chat = load_questions(path);
  }
  return data;
}

std::vector<int32_t> encode(const EvalText& text, const fs::path& path, const BpeTokenizer& tokenizer) {
  try {
    return tokenizer.encode(text.text, SpecialTokens::kParse);
  } catch (const InvalidRequest& e) {
    throw InvalidFile(path.string() + ": text " + text.name + ": " + e.what());
  }
}

std::vector<CalibrationSample> all_samples(const fs::path& path, const BpeTokenizer& tokenizer, int64_t window_tokens) {
  EvalData data = load_files(path);
  std::vector<CalibrationSample> samples;
  for (const EvalText& text : data.texts) {
    const std::vector<int32_t> ids = encode(text, path, tokenizer);
    for (auto begin = ids.begin(); begin != ids.end();) {
      const auto end = begin + std::min<int64_t>(window_tokens, ids.end() - begin);
      samples.push_back({{}, {begin, end}});
      begin = end;
    }
  }
  for (std::vector<EvalQuestion>* questions : {&data.vqa, &data.chat}) {
    for (EvalQuestion& question : *questions) samples.push_back({std::move(question), {}});
  }
  return samples;
}

std::vector<CalibrationSample> spread(std::vector<CalibrationSample> samples, int64_t limit) {
  const auto total = static_cast<int64_t>(samples.size());
  if (limit >= total) return samples;
  std::vector<CalibrationSample> chosen;
  for (int64_t i = 0; i < limit; ++i) chosen.push_back(std::move(samples[static_cast<size_t>(i * total / limit)]));
  return chosen;
}

}  // namespace

GenerationRequest scoring_request(const CalibrationSample& sample, std::span<const int32_t> end_token_ids,
                                  const MultimodalProcessor& processor) {
  GenerationRequest request;
  request.score_prompt = true;
  request.prompt_ids = sample.text_ids;
  if (sample.is_text()) return request;
  ProcessedPrompt prompt = prompt_of(sample.question, processor);
  request.prompt_ids = std::move(prompt.token_ids);
  request.images = std::move(prompt.images);
  request.score_from = static_cast<int32_t>(request.prompt_ids.size());
  request.answer_from = request.score_from;
  const std::vector<int32_t> answer = processor.tokenizer().encode(sample.question.answer, SpecialTokens::kAsText);
  request.prompt_ids.insert(request.prompt_ids.end(), answer.begin(), answer.end());
  if (!end_token_ids.empty()) request.prompt_ids.push_back(end_token_ids.front());
  return request;
}

CalibrationData load_calibration_data(const fs::path& path, int64_t limit, const BpeTokenizer& tokenizer,
                                      int64_t window_tokens) {
  if (!fs::exists(path)) throw InvalidFile(path.string() + ": does not exist; give a file or folder of samples");
  CalibrationData data{path, spread(all_samples(path, tokenizer, window_tokens), limit)};
  if (data.samples.empty()) {
    throw InvalidFile(path.string() + ": holds no sample; give a file with questions or text");
  }
  return data;
}

CalibrationRun run_calibration(const CalibrationData& data, const CalibrationSettings& settings,
                               const MultimodalProcessor& processor, RequestDriver& driver, const ProgressCallback& progress) {
  CalibrationRun run;
  for (size_t begin = 0; begin < data.samples.size(); begin += kSamplesAtOnce) {
    const size_t end = std::min(begin + kSamplesAtOnce, data.samples.size());
    std::vector<GenerationRequest> requests;
    for (size_t i = begin; i < end; ++i) {
      GenerationRequest request = scoring_request(data.samples[i], settings.end_token_ids, processor);
      request.score_from = 1;
      const bool fits = static_cast<int64_t>(request.prompt_ids.size()) <= settings.max_tokens;
      if (fits) requests.push_back(std::move(request));
    }
    driver.run(requests.size(), [&](size_t i) { return std::move(requests[i]); }, [&](size_t done, size_t) {
      progress(begin + done, data.samples.size());
    });
    run.samples += static_cast<int64_t>(requests.size());
    run.too_long += static_cast<int64_t>(end - begin - requests.size());
  }
  if (run.samples > 0) return run;
  throw InvalidFile(data.path.string() + ": none of " + std::to_string(data.samples.size()) + " samples fits into " +
                    std::to_string(settings.max_tokens) + " tokens of context; give shorter ones");
}

}  // namespace skipper
