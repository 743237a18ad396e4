// Finds added tokens in text, by the rules of Hugging Face tokenizers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "processor/tokenizer_definition.h"

namespace skipper {

// Whether the content of special tokens in a text means these tokens or is plain text.
enum class SpecialTokens : uint8_t { kParse, kAsText };

// A stretch of text, and the added token it stands for; id −1: none, ordinary text.
struct TextSegment {
  std::string_view text;
  int32_t token_id = -1;
};

// Matching goes from left to right, at each place the longest token wins, and a match that is then refused (single_word,
// or special tokens as text) still hides whatever overlaps it. Immutable and thread-safe.
class AddedVocabulary {
 public:
  explicit AddedVocabulary(std::vector<AddedToken> tokens);

  // Cuts `text`, valid UTF-8, into segments. Together they cover it, but for the white space that two neighbours
  // both strip.
  std::vector<TextSegment> split(std::string_view text, SpecialTokens special_tokens) const;

 private:
  // A trie over bytes; node 0 is the root.
  struct Node {
    std::vector<std::pair<uint8_t, int32_t>> children;
    int32_t token = -1;  // index in tokens_
  };

  void insert(int32_t token);
  int32_t child(int32_t node, char byte) const;
  int32_t longest_match(std::string_view text, size_t begin) const;
  bool is_accepted(const AddedToken& token, std::string_view text, size_t begin, SpecialTokens special_tokens) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> trie_;
  std::vector<bool> starts_token_;  // by first byte: skips most of the text at one look-up a byte
};

}  // namespace skipper
