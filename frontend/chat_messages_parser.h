// The `messages` field of a chat request: roles, texts and images.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "frontend/frontend_config.h"
#include "processor/chat_message.h"

namespace skipper {

// Role developer becomes system: templates know only that word. Images may only come from users. Throws InvalidRequest with paths
// such as "messages[1].content[0].image_url.url".
std::vector<ChatMessage> parse_chat_messages(const nlohmann::json& messages, const FrontendConfig& limits);

}  // namespace skipper
