// Samples that show a model what it will see: questions with their answers, and windows of text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "evaluation/eval_data.h"
#include "evaluation/request_driver.h"
#include "processor/multimodal_processor.h"

namespace skipper {

// Tokens of a text that are one sample.
inline constexpr int64_t kCalibrationWindow = 512;

// A question, or else a piece of text.
struct CalibrationSample {
  EvalQuestion question;
  std::vector<int32_t> text_ids;  // not empty: a window of text

  bool is_text() const { return !text_ids.empty(); }
};

struct CalibrationData {
  std::filesystem::path path;  // for messages
  std::vector<CalibrationSample> samples;
};

// A directory as `eval` reads it, one file of questions in JSON lines ({"task","question","answer"} and, with a picture,
// "image", its path relative to the file), or one text (*.txt). At most `limit` samples, spread evenly over all. Throws
// InvalidFile naming file and line; also when there is no sample. Texts are cut into windows of `window_tokens`.
CalibrationData load_calibration_data(const std::filesystem::path& path, int64_t limit, const BpeTokenizer& tokenizer,
                                      int64_t window_tokens = kCalibrationWindow);

struct CalibrationRun {
  int64_t samples = 0;   // that ran
  int64_t too_long = 0;  // left out: longer than the context
};

struct CalibrationSettings {
  std::vector<int32_t> end_token_ids;  // the first ends every answer
  int64_t max_tokens = 0;              // of a sample: the context
};

// The sample as a prompt that is scored: a question with its answer and, where there is one, the end token, of which those of the
// answer count and run as if they had been generated; or a text, of which all tokens but the first count. Throws InvalidFile
// naming the question or picture.
GenerationRequest scoring_request(const CalibrationSample& sample, std::span<const int32_t> end_token_ids,
                                  const MultimodalProcessor& processor);

// One forward pass over every sample, prompt and answer, with logits for all tokens. Throws InvalidFile when no sample fits.
CalibrationRun run_calibration(const CalibrationData& data, const CalibrationSettings& settings,
                               const MultimodalProcessor& processor, RequestDriver& driver, const ProgressCallback& progress);

}  // namespace skipper
