// The samples on which skipping is calibrated and searched, in two parts, with what they predict.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "evaluation/calibration_data.h"
#include "evaluation/point_measurement.h"
#include "processor/multimodal_processor.h"

namespace skipper {

enum class SampleKind : uint8_t { kText, kQuestion, kVisionQuestion };
inline constexpr size_t kNumSampleKinds = 3;

struct ScoredSample {
  CalibrationSample sample;
  SampleKind kind = SampleKind::kText;
  DataSplit split = DataSplit::kSearch;
  int64_t num_scored = 0;  // answer and end token of a question; all tokens but the first of a text
};

// What formats cost differs from one subject to another more than from word to word: plans are measured on short pieces.
inline constexpr int64_t kPlannedWindow = 128;

struct SampleLimits {
  int64_t samples = INT64_MAX;  // at most so many in all, a fifth of them held out
  int64_t text_windows = 32;    // at most so many of them texts: one has the tokens of a hundred answers
  int64_t window_tokens = kCalibrationWindow;  // of a window: the same tokens in shorter ones come from more places
};

struct ScoredSamples {
  std::filesystem::path path;  // for messages
  std::string hash;            // of questions, answers, pictures and texts, as taken
  std::vector<int32_t> end_token_ids;
  std::vector<ScoredSample> samples;
};

// Every kth sample of a kind is held out, the last of each k, counted before any limit: a sample has its split for good.
inline constexpr size_t kHeldOutEvery = 5;

// Reads what load_calibration_data reads, and thins it out evenly to the limits. Texts of one token are left out. Throws
// InvalidFile also for a question without answer tokens.
ScoredSamples load_scored_samples(const std::filesystem::path& path, const SampleLimits& limits,
                                  const std::vector<int32_t>& end_token_ids, const BpeTokenizer& tokenizer);

size_t num_samples_of(const ScoredSamples& samples, DataSplit split);

}  // namespace skipper
