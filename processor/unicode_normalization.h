// Unicode normalization form C, in time linear in the text also when somebody stacks 100,000 accents.
#pragma once

#include <string>
#include <string_view>

namespace skipper {

// `text` must be valid UTF-8.
std::string normalize_nfc(std::string_view text);

}  // namespace skipper
