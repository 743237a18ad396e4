#include "frontend/chat_messages_parser.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "frontend/request_fields.h"
#include "processor/data_uri.h"

namespace skipper {

using nlohmann::json;

namespace {

std::string item_path(const std::string& list, size_t i) { return list + "[" + std::to_string(i) + "]"; }

class MessagesParser {
 public:
  explicit MessagesParser(const FrontendConfig& limits) : limits_(limits) {}

  std::vector<ChatMessage> parse(const json& messages) {
    check_list(messages);
    std::vector<ChatMessage> result;
    result.reserve(messages.size());
    for (size_t i = 0; i < messages.size(); ++i) {
      result.push_back(parse_message(RequestFields(messages[i], item_path("messages", i))));
    }
    return result;
  }

 private:
  void check_list(const json& messages) const {
    if (messages.is_null()) throw InvalidRequest("messages: is missing; expected a list of messages", "messages");
    if (!messages.is_array()) throw InvalidRequest("messages: expected a list, found " + json_kind(messages), "messages");
    if (messages.empty()) throw InvalidRequest("messages: is empty; send at least one message", "messages");
    if (messages.size() <= limits_.max_messages) return;
    throw InvalidRequest("messages: " + std::to_string(messages.size()) + " messages, more than the limit of " +
                             std::to_string(limits_.max_messages),
                         "messages");
  }

  ChatMessage parse_message(const RequestFields& fields) {
    ChatMessage message{.role = parse_role(fields), .parts = {}};
    refuse_tool_calls(fields);
    const json& content = fields.raw("content");
    if (content.is_string()) {
      message.parts.push_back(text_part(content.get<std::string>(), fields.path_of("content")));
    } else if (content.is_array()) {
      for (size_t i = 0; i < content.size(); ++i) {
        message.parts.push_back(parse_part(content[i], item_path(fields.path_of("content"), i), message.role));
      }
    } else if (!content.is_null()) {
      fields.fail("content", "expected a string or a list of parts, found " + json_kind(content));
    }
    if (message.parts.empty() && message.role != "assistant") {
      fields.fail("content", "is missing; expected a string or a list of parts");
    }
    return message;
  }

  static std::string parse_role(const RequestFields& fields) {
    const std::string role = fields.required_string("role");
    if (role == "developer") return "system";
    if (role == "system" || role == "user" || role == "assistant") return role;
    if (role == "tool" || role == "function") fields.fail("role", "tools are not supported yet");
    fields.fail("role", "expected system, developer, user or assistant");
  }

  static void refuse_tool_calls(const RequestFields& fields) {
    for (const char* key : {"tool_calls", "function_call", "audio"}) {
      if (fields.has(key) && !fields.raw(key).empty()) fields.fail(key, "is not supported yet");
    }
  }

  static ChatPart text_part(std::string text, std::string param) {
    return {.kind = ChatPart::Kind::kText, .text = std::move(text), .image = {}, .param = std::move(param)};
  }

  ChatPart parse_part(const json& part, const std::string& path, const std::string& role) {
    const RequestFields fields(part, path);
    const std::string type = fields.required_string("type");
    if (type == "text") return text_part(fields.required_string("text"), fields.path_of("text"));
    if (type != "image_url") fields.fail("type", "expected text or image_url");
    if (role != "user") fields.fail("type", "images are accepted in user messages only");
    return parse_image(fields);
  }

  ChatPart parse_image(const RequestFields& part) {
    if (!part.has("image_url")) part.fail("image_url", "is missing; expected {\"url\": \"data:image/png;base64,...\"}");
    const RequestFields image_url(part.raw("image_url"), part.path_of("image_url"));
    const std::string param = image_url.path_of("url");
    if (++num_images_ > limits_.max_images) {
      image_url.fail("url", "more than the limit of " + std::to_string(limits_.max_images) + " images in a request");
    }
    const std::string uri = image_url.required_string("url");
    return {.kind = ChatPart::Kind::kImage,
            .text = "",
            .image = decode_data_uri(uri, limits_.max_image_bytes, param),
            .param = param};
  }

  const FrontendConfig& limits_;
  size_t num_images_ = 0;
};

}  // namespace

std::vector<ChatMessage> parse_chat_messages(const json& messages, const FrontendConfig& limits) {
  return MessagesParser(limits).parse(messages);
}

}  // namespace skipper
