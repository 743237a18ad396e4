#include "processor/added_vocabulary.h"

#include <algorithm>
#include <utility>

#include "processor/character_class.h"

namespace skipper {

AddedVocabulary::AddedVocabulary(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), trie_(1), starts_token_(256, false) {
  for (size_t i = 0; i < tokens_.size(); ++i) insert(static_cast<int32_t>(i));
}

std::vector<TextSegment> AddedVocabulary::split(std::string_view text, SpecialTokens special_tokens) const {
  std::vector<TextSegment> segments;
  size_t done = 0;
  for (size_t position = 0; position < text.size();) {
    const int32_t match = longest_match(text, position);
    if (match < 0) {
      ++position;
      continue;
    }
    const AddedToken& token = tokens_[match];
    size_t begin = position;
    size_t end = position += token.content.size();
    if (!is_accepted(token, text, begin, special_tokens)) continue;
    if (token.lstrip) begin = std::max(begin_of_trailing_space(text.substr(0, begin)), done);
    if (token.rstrip) end += end_of_leading_space(text.substr(end));
    if (done < begin) segments.push_back({text.substr(done, begin - done)});
    segments.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) segments.push_back({text.substr(done)});
  return segments;
}

void AddedVocabulary::insert(int32_t token) {
  const std::string& content = tokens_[token].content;
  starts_token_[static_cast<uint8_t>(content.front())] = true;
  int32_t node = 0;
  for (const char byte : content) {
    int32_t next = child(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(trie_.size());
      trie_[node].children.emplace_back(static_cast<uint8_t>(byte), next);
      trie_.emplace_back();
    }
    node = next;
  }
  trie_[node].token = token;
}

int32_t AddedVocabulary::child(int32_t node, char byte) const {
  for (const auto& [label, next] : trie_[node].children) {
    if (label == static_cast<uint8_t>(byte)) return next;
  }
  return -1;
}

// The token that begins at `begin`, as an index in tokens_; −1: none.
int32_t AddedVocabulary::longest_match(std::string_view text, size_t begin) const {
  if (!starts_token_[static_cast<uint8_t>(text[begin])]) return -1;
  int32_t longest = -1;
  int32_t node = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    node = child(node, text[i]);
    if (node < 0) break;
    if (trie_[node].token >= 0) longest = trie_[node].token;
  }
  return longest;
}

bool AddedVocabulary::is_accepted(const AddedToken& token, std::string_view text, size_t begin,
                                  SpecialTokens special_tokens) const {
  if (token.special && special_tokens == SpecialTokens::kAsText) return false;
  if (!token.single_word) return true;
  return !ends_with_word_character(text.substr(0, begin)) &&
         !starts_with_word_character(text.substr(begin + token.content.size()));
}

}  // namespace skipper
