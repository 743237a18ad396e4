// The three classes of tokens that skipping tells apart.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace skipper {

// text: an ordinary token, prompt or generated. vision: an image or video placeholder. protected: chat-template and other
// special tokens, never skipped (MoDES, section 3; the released code's `all_special_ids`).
enum class TokenClass : uint8_t { kText = 0, kVision = 1, kProtected = 2 };

inline constexpr int kNumTokenClasses = 3;
inline constexpr std::array<std::string_view, kNumTokenClasses> kTokenClassNames = {"text", "vision", "protected"};
inline std::string class_name(size_t token_class) { return std::string(kTokenClassNames[token_class]); }

// prompt: a token that came with the request, its own earlier answers included. generated: one that this request sampled, also
// when it is computed again.
enum class TokenPhase : uint8_t { kPrompt = 0, kGenerated = 1 };

inline constexpr int kNumTokenPhases = 2;
inline constexpr std::array<std::string_view, kNumTokenPhases> kTokenPhaseNames = {"prompt", "generated"};

// Where a destination rank is, seen from the source.
enum class Hop : uint8_t { kLocal = 0, kNode = 1, kNetwork = 2 };

inline constexpr int kNumHops = 3;
inline constexpr std::array<std::string_view, kNumHops> kHopNames = {"local", "node", "network"};

}  // namespace skipper
