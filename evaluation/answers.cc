#include "evaluation/answers.h"

#include <algorithm>

#include "evaluation/question_prompt.h"

namespace skipper {
namespace {

GenerationRequest make_request(const EvalQuestion& question, const AnswerSettings& settings,
                               const MultimodalProcessor& processor) {
  ProcessedPrompt prompt = prompt_of(question, processor);
  GenerationRequest request;
  request.prompt_ids = std::move(prompt.token_ids);
  request.images = std::move(prompt.images);
  request.max_new_tokens = settings.max_new_tokens;
  request.stop_token_ids = settings.end_token_ids;
  request.level = settings.level;
  return request;
}

std::string stripped(const std::string& text) {
  constexpr const char* kWhiteSpace = " \t\r\n\f\v";
  const size_t begin = text.find_first_not_of(kWhiteSpace);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(kWhiteSpace) - begin + 1);
}

std::string answer_text(std::vector<int32_t> ids, const AnswerSettings& settings, const BpeTokenizer& tokenizer) {
  const auto end = std::find_first_of(ids.begin(), ids.end(), settings.end_token_ids.begin(), settings.end_token_ids.end());
  ids.erase(end, ids.end());
  return stripped(tokenizer.decode(ids));
}

}  // namespace

std::vector<uint8_t> answer_questions(const std::vector<EvalQuestion>& questions, const AnswerSettings& settings,
                                      const MultimodalProcessor& processor, RequestDriver& driver,
                                      const ProgressCallback& progress) {
  const auto make = [&](size_t i) { return make_request(questions[i], settings, processor); };
  const std::vector<DrivenResult> results = driver.run(questions.size(), make, progress);
  std::vector<uint8_t> is_right;
  for (size_t i = 0; i < questions.size(); ++i) {
    is_right.push_back(answer_text(results[i].generated_ids, settings, processor.tokenizer()) == questions[i].answer ? 1 : 0);
  }
  return is_right;
}

std::map<std::string, TaskScore> measure_answers(const std::vector<EvalQuestion>& questions, const AnswerSettings& settings,
                                                 const MultimodalProcessor& processor, RequestDriver& driver,
                                                 const ProgressCallback& progress) {
  const std::vector<uint8_t> is_right = answer_questions(questions, settings, processor, driver, progress);
  std::map<std::string, TaskScore> scores;
  for (size_t i = 0; i < questions.size(); ++i) {
    TaskScore& score = scores[questions[i].task];
    ++score.total;
    score.right += is_right[i];
  }
  return scores;
}

}  // namespace skipper
