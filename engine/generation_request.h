// What is asked of the engine and what comes back: serialisable values, and the sink that receives them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cluster/step_plan.h"
#include "cluster/switch_state.h"
#include "engine/level_history.h"
#include "engine/version_usage.h"
#include "model/image_patches.h"

namespace skipper {

// temperature 0 is greedy. top_k 0 and top_p 1 are off. Random numbers are a function of (seed, choice, position) alone.
struct SamplingParams {
  float temperature = 0.0f;
  float top_p = 1.0f;
  int32_t top_k = 0;
  uint64_t seed = 0;
  int32_t choice = 0;  // index among the n choices of one HTTP request
};

// What a scored prompt's log-probabilities are for. A comparison must run on the rank that keeps the reference.
enum class ReferenceUse : uint8_t {
  kNone,
  kKeep,     // remember the log-probabilities of the scored tokens under `reference_id`
  kCompare,  // KL divergence of this run from them
};

// Whose level a request's tokens run at.
enum class LevelChoice : uint8_t {
  kOwn,     // the request's
  kGlobal,  // the engine's at the time a token first runs, at most the request's
};

// A request can start from prompt + tokens so far: replaying `generated_ids` continues it bit for bit,
// with `level_history` also after changes of level.
struct GenerationRequest {
  uint64_t id = 0;  // unique in the process, given by the queue
  std::vector<int32_t> prompt_ids;
  std::vector<int32_t> generated_ids;
  std::vector<ImagePatches> images;  // in the order of their placeholders in prompt_ids
  SamplingParams sampling;
  int32_t max_new_tokens = 16;  // generated_ids included; at least 1 unless score_prompt
  int32_t min_new_tokens = 0;   // until then stop tokens cannot be sampled
  std::vector<int32_t> stop_token_ids;  // sampling one ends the request; it is reported but not part of the text
  uint8_t level = 0;            // of the LevelTable; kGlobal: the highest allowed
  LevelChoice level_choice = LevelChoice::kOwn;
  LevelHistory level_history = {};  // of the tokens that ran before
  bool score_prompt = false;    // report the log-likelihood of the prompt instead of generating
  int32_t score_from = 1;       // score_prompt: the first token that is predicted, 1 to the last
  int32_t answer_from = INT32_MAX;  // score_prompt: tokens of the prompt from here on run as if they had been generated
  ReferenceUse reference = ReferenceUse::kNone;
  uint64_t reference_id = 0;
  int32_t rank = -1;            // where it must run; −1: anywhere
};

// What a request's tokens cost: sums over its tokens and the layers, computed again tokens (preemption) counted again.
struct SkipUsage {
  int64_t pairs_run = 0;      // at the expert's owner or on a shadow; with those skipped, all that were routed
  int64_t pairs_skipped = 0;
  int64_t bytes_sent = 0;     // hidden rows to other ranks and back
  int64_t bytes_saved = 0;    // those that skipping spared
  int64_t pairs_shadow = 0;   // of those that ran

  SkipUsage& operator+=(const SkipUsage& other);
  bool operator==(const SkipUsage&) const = default;
};

// How far a run is from its reference, summed over the scored tokens.
struct ReferenceDistance {
  double kl = 0.0;             // Σ KL(reference ‖ this run), nats, FP64
  int32_t num_flips = 0;       // tokens whose most probable successor differs

  bool operator==(const ReferenceDistance&) const = default;
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled, kError };

// One event per generated token, or one final event for score_prompt, cancellation and errors.
struct TokenEvent {
  uint64_t request_id = 0;
  int32_t token_id = -1;    // -1: none in this event
  int32_t num_generated = 0;  // tokens generated so far, this one included
  FinishReason finish_reason = FinishReason::kNone;
  double prompt_nll = 0.0;    // score_prompt: sum of −log p over the prompt's tokens but its first, in nats
  int32_t num_scored = 0;     // score_prompt: tokens in that sum
  ReferenceDistance distance = {};  // ReferenceUse::kCompare: over the same tokens
  uint8_t level = 0;          // of the newest token that was computed
  SkipUsage usage = {};       // of the request so far
  std::vector<VersionTokens> versions = {};  // the same; empty where no experts are switched
  std::string error = {};     // kError: one line for the client
};

// Both are values that cross process borders. Decoding throws CommError when the bytes are not what encode() wrote.
void encode(const GenerationRequest& request, std::vector<std::byte>& out);
GenerationRequest decode_generation_request(std::span<const std::byte> bytes);
void encode(const TokenEvent& event, std::vector<std::byte>& out);
TokenEvent decode_token_event(std::span<const std::byte> bytes);

// Called on the engine thread once per event, in order; must not block. Returning false cancels the request.
using TokenSink = std::function<bool(const TokenEvent&)>;

// A request on its way to the engine with what cannot be serialised.
struct Submission {
  GenerationRequest request;
  TokenSink sink;
  std::shared_ptr<std::atomic<bool>> cancelled;  // set by the owner at any time; seen at the next step
  // kReference: in steps of its own, on the experts that the served ones are compared with.
  ExpertSet experts = ExpertSet::kServed;
  PolicyFloor floor = {};  // of the policies that experts are switched to while it runs
};

}  // namespace skipper
