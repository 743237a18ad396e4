// Byte-pair encoding of one word: from its bytes to tokens by the ranked merges, in O(n log n).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "processor/tokenizer_definition.h"

namespace skipper {

// The working memory of one thread, reused from word to word.
struct MergeScratch {
  struct Symbol {
    int32_t token_id = 0;  // −1: swallowed by its left neighbour
    int32_t previous = 0;  // −1: none
    int32_t next = 0;      // −1: none
  };
  std::vector<Symbol> symbols;
  std::vector<uint64_t> queue;  // rank << 32 | position of the left symbol; a min-heap
};

// Immutable and thread-safe.
class BpeMerger {
 public:
  explicit BpeMerger(const TokenizerDefinition& definition);

  // Appends the tokens of `word`: again and again the merge of lowest rank, leftmost first, until none applies.
  void append_tokens(std::string_view word, MergeScratch& scratch, std::vector<int32_t>& token_ids) const;

 private:
  struct Merge {
    uint32_t rank = 0;
    int32_t result = 0;
  };

  const Merge* find_merge(int32_t left, int32_t right) const;
  void fill_symbols(std::string_view word, MergeScratch& scratch) const;
  void fill_queue(MergeScratch& scratch) const;
  void merge_at(uint32_t position, int32_t result, MergeScratch& scratch) const;
  void offer(int32_t left_position, MergeScratch& scratch) const;

  std::array<int32_t, 256> byte_ids_{};
  std::unordered_map<uint64_t, Merge> merges_;
};

}  // namespace skipper
