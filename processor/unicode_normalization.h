// Unicode normalization form C, in time linear in the text also when somebody stacks 100,000 accents.
#pragma once

#include <string>
#include <string_view>

namespace skipper {

// `text` must be valid UTF-8. Follows the Unicode version of utf8proc (15 in Debian 12). Hugging Face tokenizers' is older
// and does not know the combining classes of 108 marks of rare scripts: beside other marks these may be ordered differently.
std::string normalize_nfc(std::string_view text);

}  // namespace skipper
