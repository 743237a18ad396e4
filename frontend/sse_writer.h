// Server-sent events: one JSON document per event, and the end that OpenAI's clients wait for.
#pragma once

#include <string>
#include <string_view>

namespace skipper {

inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";

// `json` holds no line break (dump() without indentation never does).
inline std::string sse_event(std::string_view json) { return "data: " + std::string(json) + "\n\n"; }

}  // namespace skipper
