// What tokenizer.json and tokenizer_config.json say, read and checked; no encoding here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

namespace skipper {

inline constexpr int32_t kMaxTokenId = 1 << 24;

// A token that is looked for in the text before it is split into words.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and behind it
  bool normalized = false;   // is looked for in the normalized text, else in the text as it came
  bool special = false;
};

struct MergeRule {
  int32_t left = 0;
  int32_t right = 0;
  int32_t result = 0;
};

struct TokenizerDefinition {
  bool normalizes_nfc = false;
  bool ignores_merges = false;              // a word that is a token as a whole is not merged from its bytes
  std::vector<std::string> split_patterns;  // applied in turn, each to the pieces the former left
  std::vector<std::string> token_bytes;     // by id; empty where no token has the id
  std::unordered_map<std::string, int32_t> model_token_ids;  // by bytes; without added tokens
  std::vector<MergeRule> merges;            // earlier ones come first
  std::vector<AddedToken> added_tokens;     // ascending ids
};

// Reads `tokenizer.json`, and from `tokenizer_config.json`, where there is one, the flags of added tokens, which overrule.
// Throws InvalidFile naming file, key and value for everything but byte-level BPE as Qwen, GPT-2, Llama 3 and DeepSeek
// publish it.
TokenizerDefinition read_tokenizer_definition(const std::filesystem::path& model_directory);

}  // namespace skipper
