// One request's progress, as rank 0 sees it.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/generation_request.h"
#include "engine/level_map.h"

namespace skipper {

struct Sequence {
  Submission submission;          // its request's generated_ids and level_history grow
  int rank = -1;                  // owner of its KV cache; −1 while it waits
  int32_t num_computed = 0;       // tokens whose K and V are in the cache
  uint64_t start_order = 0;       // when it was last given to a rank; the newest is preempted first
  std::vector<int32_t> blocks;    // its KV blocks on `rank`
  SkipUsage usage;                // of its steps so far
  std::vector<VersionTokens> versions;  // of its steps so far, where they are counted

  const GenerationRequest& request() const { return submission.request; }
  int32_t num_tokens() const {
    return static_cast<int32_t>(request().prompt_ids.size() + request().generated_ids.size());
  }
  int32_t num_pending() const { return num_tokens() - num_computed; }
  // One pending token, and it was sampled: a decode step. Anything else is (re)computing known tokens.
  bool decoding() const { return num_pending() == 1 && num_computed > 0 && !request().score_prompt; }
  // The slot of a token that runs for the first time while the engine is at `global_level`.
  uint8_t current_slot(uint8_t global_level, const LevelMap& levels) const {
    const bool follows = request().level_choice == LevelChoice::kGlobal;
    return levels.slot_of_level[follows ? levels.level_under(request().level, global_level) : request().level];
  }
  // Whether an image's features may take the place of the token at `position`.
  bool may_be_image(int32_t position) const {
    return !request().images.empty() && position < static_cast<int32_t>(request().prompt_ids.size());
  }
  bool cancelled() const { return submission.cancelled && submission.cancelled->load(std::memory_order_relaxed); }
};

}  // namespace skipper
