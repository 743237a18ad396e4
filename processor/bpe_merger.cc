#include "processor/bpe_merger.h"

#include <algorithm>
#include <functional>
#include <string>

namespace skipper {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

uint64_t queue_entry(uint32_t rank, uint32_t position) { return static_cast<uint64_t>(rank) << 32 | position; }

}  // namespace

BpeMerger::BpeMerger(const TokenizerDefinition& definition) {
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = definition.model_token_ids.find(std::string(1, static_cast<char>(byte)));
    byte_ids_[byte] = found == definition.model_token_ids.end() ? -1 : found->second;
  }
  merges_.reserve(definition.merges.size());
  for (size_t rank = 0; rank < definition.merges.size(); ++rank) {
    const MergeRule& rule = definition.merges[rank];
    // A pair listed twice has its last rank, as in HF.
    merges_[pair_key(rule.left, rule.right)] = {static_cast<uint32_t>(rank), rule.result};
  }
}

void BpeMerger::append_tokens(std::string_view word, MergeScratch& scratch, std::vector<int32_t>& token_ids) const {
  fill_symbols(word, scratch);
  fill_queue(scratch);
  while (!scratch.queue.empty()) {
    const uint64_t entry = scratch.queue.front();
    std::pop_heap(scratch.queue.begin(), scratch.queue.end(), std::greater<>());
    scratch.queue.pop_back();
    const auto position = static_cast<uint32_t>(entry);
    const MergeScratch::Symbol& left = scratch.symbols[position];
    if (left.token_id < 0 || left.next < 0) continue;
    const Merge* merge = find_merge(left.token_id, scratch.symbols[left.next].token_id);
    // Another merge may have changed the pair since it was queued.
    if (merge == nullptr || queue_entry(merge->rank, position) != entry) continue;
    merge_at(position, merge->result, scratch);
  }
  for (const MergeScratch::Symbol& symbol : scratch.symbols) {
    if (symbol.token_id >= 0) token_ids.push_back(symbol.token_id);
  }
}

const BpeMerger::Merge* BpeMerger::find_merge(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void BpeMerger::fill_symbols(std::string_view word, MergeScratch& scratch) const {
  scratch.symbols.clear();
  const auto size = static_cast<int32_t>(word.size());
  for (int32_t i = 0; i < size; ++i) {
    scratch.symbols.push_back({byte_ids_[static_cast<uint8_t>(word[i])], i - 1, i + 1 < size ? i + 1 : -1});
  }
}

void BpeMerger::fill_queue(MergeScratch& scratch) const {
  scratch.queue.clear();
  for (size_t i = 0; i + 1 < scratch.symbols.size(); ++i) {
    const Merge* merge = find_merge(scratch.symbols[i].token_id, scratch.symbols[i + 1].token_id);
    if (merge != nullptr) scratch.queue.push_back(queue_entry(merge->rank, static_cast<uint32_t>(i)));
  }
  std::make_heap(scratch.queue.begin(), scratch.queue.end(), std::greater<>());
}

void BpeMerger::merge_at(uint32_t position, int32_t result, MergeScratch& scratch) const {
  MergeScratch::Symbol& left = scratch.symbols[position];
  MergeScratch::Symbol& right = scratch.symbols[left.next];
  left.token_id = result;
  left.next = right.next;
  right.token_id = -1;
  if (left.next >= 0) scratch.symbols[left.next].previous = static_cast<int32_t>(position);
  offer(left.previous, scratch);
  offer(static_cast<int32_t>(position), scratch);
}

// Queues the pair of the symbol at `left_position` and its right neighbour, if a merge joins them.
void BpeMerger::offer(int32_t left_position, MergeScratch& scratch) const {
  if (left_position < 0) return;
  const MergeScratch::Symbol& left = scratch.symbols[left_position];
  if (left.next < 0) return;
  const Merge* merge = find_merge(left.token_id, scratch.symbols[left.next].token_id);
  if (merge == nullptr) return;
  scratch.queue.push_back(queue_entry(merge->rank, static_cast<uint32_t>(left_position)));
  std::push_heap(scratch.queue.begin(), scratch.queue.end(), std::greater<>());
}

}  // namespace skipper
