// Text to token ids and back: the byte-level BPE that tokenizer.json of a checkpoint describes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "processor/added_vocabulary.h"

namespace skipper {

// Gives the ids that Hugging Face tokenizers gives. Immutable and thread-safe.
class BpeTokenizer {
 public:
  // Reads tokenizer.json and, where there is one, tokenizer_config.json. Throws InvalidFile naming file, key and value for
  // what is missing, broken or not supported.
  explicit BpeTokenizer(const std::filesystem::path& model_directory);
  ~BpeTokenizer();
  BpeTokenizer(BpeTokenizer&&) noexcept;

  // Token ids of `text`, in time O(n log n) whatever it holds. kParse reads "<|im_end|>" as that token: transformers does so
  // with the whole rendered chat prompt, user text included, and prompts must be identical to its. kAsText reads it as
  // plain text. Throws InvalidRequest naming the byte offset for text that is not UTF-8, and for text over the limits of
  // the regular expressions.
  std::vector<int32_t> encode(std::string_view text, SpecialTokens special_tokens) const;

  // The bytes of all tokens in a row; not always UTF-8 (IncrementalDetokenizer makes text of them).
  std::string decode(std::span<const int32_t> token_ids) const;

  // The bytes of one token; empty for an id that no token has: checkpoints pad their embedding rows beyond the vocabulary.
  std::string_view token_bytes(int32_t token_id) const;

  // The token that reads `text`, an added one before one of the model.
  std::optional<int32_t> token_id(std::string_view text) const;

  // Special tokens, ascending: transformers' all_special_ids.
  const std::vector<int32_t>& special_ids() const;
  bool is_special(int32_t token_id) const;

  // The largest id plus one.
  int32_t vocab_size() const;

 private:
  class Encoding;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace skipper
