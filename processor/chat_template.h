// The chat template of a model directory: from chat messages to the text of the prompt, as transformers renders it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "jinja/template.h"
#include "processor/chat_message.h"

namespace skipper {

// Whether the prompt ends with the opening of the assistant's answer (add_generation_prompt).
enum class AnswerOpening : uint8_t { kOmitted, kAppended };

// Immutable and thread-safe.
class ChatTemplate {
 public:
  // Reads chat_template.jinja, else "chat_template" of chat_template.json, else that of tokenizer_config.json (of a list of
  // templates the one named "default"); special tokens such as eos_token come from tokenizer_config.json. Throws InvalidFile
  // when there is no template or one outside the supported subset of Jinja.
  explicit ChatTemplate(const std::filesystem::path& model_directory);

  // Templates see tools and documents as none and no further variables (such as enable_thinking). The parts of a message
  // without images reach them as one text, those of others as a list. Throws InvalidRequest with the parameter "messages",
  // in the template's own words where it calls raise_exception.
  std::string render(const std::vector<ChatMessage>& messages, AnswerOpening opening = AnswerOpening::kAppended) const;

 private:
  jinja::Map special_tokens_;
  jinja::Template template_;
};

}  // namespace skipper
