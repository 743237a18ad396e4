// Exact-match answers to questions, with or without a picture.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "evaluation/eval_data.h"
#include "evaluation/request_driver.h"
#include "processor/multimodal_processor.h"

namespace skipper {

struct TaskScore {
  int64_t right = 0;
  int64_t total = 0;
};

struct AnswerSettings {
  std::vector<int32_t> end_token_ids;  // end an answer
  int32_t max_new_tokens = 64;
  uint8_t level = 0;
};

// Asks every question through the chat template, picture first, greedily. 1 for each that is answered right: the text before the
// end token, stripped of white space, equals the expected one.
std::vector<uint8_t> answer_questions(const std::vector<EvalQuestion>& questions, const AnswerSettings& settings,
                                      const MultimodalProcessor& processor, RequestDriver& driver,
                                      const ProgressCallback& progress);

// The same, as scores by task.
std::map<std::string, TaskScore> measure_answers(const std::vector<EvalQuestion>& questions, const AnswerSettings& settings,
                                                 const MultimodalProcessor& processor, RequestDriver& driver,
                                                 const ProgressCallback& progress);

}  // namespace skipper
