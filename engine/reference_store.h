// Predictions that a rank remembers, and how far later predictions of the same tokens are from them.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "engine/generation_request.h"

namespace skipper {

// KL(p ‖ q) in nats of softmax(reference) from softmax(logits), and whether their most probable tokens differ (lowest id on
// ties). FP64, summed in order of ids; 0 for equal logits, never negative; NaN when there is one in either.
ReferenceDistance distance_between(std::span<const float> reference, std::span<const float> logits);

// The logits of scored prompts, as they are: 4 bytes for each token of the vocabulary and scored token. Engine thread only.
class ReferenceStore {
 public:
  // Forgets what was kept under `id`.
  void start(uint64_t id) { references_[id] = {}; }
  // Rows come in order.
  void keep(uint64_t id, std::span<const float> logits);
  // All rows of `id` at once, as references() of another store gave them.
  void put(uint64_t id, std::vector<float> rows) { references_[id] = std::move(rows); }
  // Of the row-th kept. Throws Error when this rank does not have it.
  ReferenceDistance compare(uint64_t id, int64_t row, std::span<const float> logits) const;

  // By id: rows one after the other.
  const std::map<uint64_t, std::vector<float>>& references() const { return references_; }

 private:
  std::map<uint64_t, std::vector<float>> references_;  // [rows, vocabulary]
};

}  // namespace skipper
