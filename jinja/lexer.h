// Template source → tokens: text between tags (white space already trimmed by Jinja's rules) and what is inside tags.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace skipper::jinja {

enum class TokenKind : uint8_t {
  kText,         // text: what to print
  kOutputBegin,  // {{
  kOutputEnd,    // }}
  kTagBegin,     // {%
  kTagEnd,       // %}
  kName,         // text: the name, keywords included
  kString,       // text: the content, escapes replaced
  kInteger,      // text: digits
  kFloat,        // text: as in the source, underscores removed
  kOperator,     // text: "+", "==", "|", "[" ...
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string text;
  int line;
};

// Follows the settings of Hugging Face chat templates: trim_blocks, lstrip_blocks, one newline at the end dropped, \r\n is
// \n. The last token is kEnd. Throws TemplateError.
std::vector<Token> tokenize(std::string_view source);

}  // namespace skipper::jinja
