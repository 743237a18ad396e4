#include "evaluation/question_prompt.h"

#include <string>

#include "base/error.h"

namespace skipper {

ProcessedPrompt prompt_of(const EvalQuestion& question, const MultimodalProcessor& processor) {
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

  // Errors of the processor speak of a request's field; here it is the question and its file that matter.
  try {
    return processor.process({message});
  } catch (const InvalidRequest& e) {
    throw InvalidFile(e.param() + ": " + e.what());
  }
}

}  // namespace skipper
