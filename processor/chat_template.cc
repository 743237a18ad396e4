#include "processor/chat_template.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/json_fields.h"
#include "jinja/template_error.h"
#include "processor/utf8.h"

namespace skipper {
namespace {

using nlohmann::json;

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
constexpr std::array kSpecialTokens = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};

struct TemplateSource {
  std::string text;
  std::string origin;  // for errors: the file, and the key where there is one
};

std::optional<TemplateSource> read_template_file(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InvalidFile(path.string() + ": cannot be opened; check the path and its permissions");
  return TemplateSource{std::string(std::istreambuf_iterator<char>(file), {}), path.string()};
}

// "chat_template" is a text, or a list of {"name", "template"} of which the default is ours.
std::optional<std::string> template_of_json(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return std::nullopt;
  for (const json& entry : value) {
    const bool is_default = entry.is_object() && entry.value("name", json()) == "default";
    if (is_default && entry.contains("template")) return template_of_json(entry.at("template"));
  }
  return std::nullopt;
}

std::optional<TemplateSource> read_template_key(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  const json config = read_json_file(path);
  if (!config.is_object() || !config.contains("chat_template") || config.at("chat_template").is_null()) return std::nullopt;
  const auto text = template_of_json(config.at("chat_template"));
  if (!text) throw InvalidFile(path.string() + ": chat_template: expected a text or a list with a template named default");
  return TemplateSource{*text, path.string() + ": chat_template"};
}

TemplateSource find_template(const std::filesystem::path& model_directory) {
  if (auto source = read_template_file(model_directory / "chat_template.jinja")) return *source;
  if (auto source = read_template_key(model_directory / "chat_template.json")) return *source;
  if (auto source = read_template_key(model_directory / "tokenizer_config.json")) return *source;
  throw InvalidFile(model_directory.string() +
                    ": has no chat template; add chat_template.jinja from the model's original repository");
}

jinja::Template parse_template(const TemplateSource& source) {
  if (source.text.size() > kMaxTemplateBytes) {
    throw InvalidFile(source.origin + ": " + std::to_string(source.text.size()) + " bytes, more than the limit of " +
                      std::to_string(kMaxTemplateBytes));
  }
  if (const auto offset = find_invalid_utf8(source.text)) {
    throw InvalidFile(source.origin + ": not UTF-8 at byte " + std::to_string(*offset));
  }
  try {
    return jinja::Template(source.text);
  } catch (const jinja::TemplateError& error) {
    throw InvalidFile(source.origin + ": " + error.what() + "; simplify the template at that line");
  }
}

// A special token is written as its text or as an object with the text as "content".
jinja::Map read_special_tokens(const std::filesystem::path& path) {
  jinja::Map tokens;
  if (!std::filesystem::exists(path)) return tokens;
  const json config = read_json_file(path);
  if (!config.is_object()) throw InvalidFile(path.string() + ": expected a JSON object, found " + config.type_name());
  for (const char* name : kSpecialTokens) {
    json token = config.value(name, json());
    if (token.is_object()) token = token.value("content", json());
    if (token.is_string()) tokens.set(name, jinja::Value(token.get<std::string>()));
  }
  return tokens;
}

bool has_image(const ChatMessage& message) {
  return std::any_of(message.parts.begin(), message.parts.end(),
                     [](const ChatPart& part) { return part.kind == ChatPart::Kind::kImage; });
}

jinja::Value part_value(const ChatPart& part) {
  jinja::Map fields;
  if (part.kind == ChatPart::Kind::kImage) {
    fields.set("type", "image");
  } else {
    fields.set("type", "text");
    fields.set("text", part.text);
  }
  return jinja::Value::map(std::move(fields));
}

// Text-only templates take texts alone, and those that take lists print their texts one after the other.
jinja::Value content_value(const ChatMessage& message) {
  if (!has_image(message)) {
    std::string text;
    for (const ChatPart& part : message.parts) text += part.text;
    return jinja::Value(std::move(text));
  }
  std::vector<jinja::Value> parts;
  for (const ChatPart& part : message.parts) parts.push_back(part_value(part));
  return jinja::Value::list(std::move(parts));
}

jinja::Value messages_value(const std::vector<ChatMessage>& messages) {
  std::vector<jinja::Value> values;
  for (const ChatMessage& message : messages) {
    jinja::Map fields;
    fields.set("role", message.role);
    fields.set("content", content_value(message));
    values.push_back(jinja::Value::map(std::move(fields)));
  }
  return jinja::Value::list(std::move(values));
}

}  // namespace

ChatTemplate::ChatTemplate(const std::filesystem::path& model_directory)
    : special_tokens_(read_special_tokens(model_directory / "tokenizer_config.json")),
      template_(parse_template(find_template(model_directory))) {}

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages, AnswerOpening opening) const {
  jinja::Map context = special_tokens_;
  context.set("messages", messages_value(messages));
  context.set("tools", jinja::Value());
  context.set("documents", jinja::Value());
  context.set("add_generation_prompt", jinja::Value(opening == AnswerOpening::kAppended));
  try {
    return template_.render(context);
  } catch (const jinja::RaisedByTemplate& error) {
    throw InvalidRequest(error.message(), "messages");
  } catch (const jinja::TemplateError& error) {
    throw InvalidRequest(std::string("messages: the model's chat template cannot render them: ") + error.what(), "messages");
  }
}

}  // namespace skipper
