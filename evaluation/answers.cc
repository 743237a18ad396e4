#include "evaluation/answers.h"

#include <algorithm>

#include "base/error.h"

namespace skipper {
namespace {

// Errors of the processor speak of a request's field; here it is the question and its file that matter.
ProcessedPrompt process(const ChatMessage& message, const MultimodalProcessor& processor) {
  try {
    return processor.process({message});
  } catch (const InvalidRequest& e) {
    throw InvalidFile(e.param() + ": " + e.what());
  }
}

GenerationRequest make_request(const EvalQuestion& question, const AnswerSettings& settings,
                               const MultimodalProcessor& processor) {
  ChatMessage message;
  message.role = "user";
  if (!question.image.empty()) {
    const std::string bytes = read_file(question.image);
    ChatPart image;
    image.kind = ChatPart::Kind::kImage;
    image.image.assign(bytes.begin(), bytes.end());
    image.param = question.image.string();
    message.parts.push_back(std::move(image));
  }
  ChatPart text;
  text.text = question.question;
  text.param = "question '" + question.question + "'";
  message.parts.push_back(std::move(text));

  ProcessedPrompt prompt = process(message, processor);
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

std::map<std::string, TaskScore> measure_answers(const std::vector<EvalQuestion>& questions, const AnswerSettings& settings,
                                                 const MultimodalProcessor& processor, RequestDriver& driver,
                                                 const ProgressCallback& progress) {
  const auto make = [&](size_t i) { return make_request(questions[i], settings, processor); };
  const std::vector<DrivenResult> results = driver.run(questions.size(), make, progress);
  std::map<std::string, TaskScore> scores;
  for (size_t i = 0; i < questions.size(); ++i) {
    TaskScore& score = scores[questions[i].task];
    ++score.total;
    if (answer_text(results[i].generated_ids, settings, processor.tokenizer()) == questions[i].answer) ++score.right;
  }
  return scores;
}

}  // namespace skipper
