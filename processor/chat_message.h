// One message of a chat as a client sent it, checked and decoded: what multimodal_processor turns into a prompt.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace skipper {

struct ChatPart {
  enum class Kind : uint8_t { kText, kImage };
  Kind kind = Kind::kText;
  std::string text;            // kText: UTF-8
  std::vector<uint8_t> image;  // kImage: the bytes of a PNG or JPEG file, not yet decoded
  std::string param;           // the path of the request's field, for errors
};

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::vector<ChatPart> parts;
};

}  // namespace skipper
