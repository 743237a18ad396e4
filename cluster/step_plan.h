// The message of one step: what every rank does, decided by rank 0, and what the ranks answer.
//
// Goals: every choice that changes which collectives run is in here, so ranks cannot diverge; sizes of all later messages of
// the step follow from it. Non-goals: carrying tensors (activations go through the data communicator), understanding requests
// (an admission is opaque bytes to this file; engine/ encodes them).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/byte_codec.h"
#include "cluster/forward_shape.h"

namespace skipper {

enum class StepKind : uint8_t {
  kRun,   // a forward pass; ranks without tokens take part with zero
  kIdle,  // heartbeat: nothing to compute, every rank answers
  kStop,  // leave the loop
};

// One sequence's part in a step: tokens [start, start + num_tokens) of its prompt and generated ids.
struct SequenceStep {
  uint64_t sequence_id = 0;
  int32_t start = 0;
  int32_t num_tokens = 0;
  uint8_t level = 0;                // of the LevelTable, of all these tokens
  bool sample = false;              // sample the token after the last of these
  std::vector<int32_t> new_blocks;  // KV blocks appended to the sequence's table before the step
};

struct RankPlan {
  std::vector<uint64_t> released;         // sequences whose state and blocks are gone, applied first
  std::vector<uint64_t> admission_bytes;  // sizes of the encoded requests scattered to this rank, applied second
  std::vector<SequenceStep> sequences;

  int64_t num_tokens() const;
};

// Of a rank that a guard watches: the experts that serve, or those that they are compared with.
enum class ExpertSet : uint8_t { kServed, kReference };

// The experts that serve from start.
inline constexpr uint32_t kFirstExpertVersion = 1;
// Of tokens on ExpertSet::kReference, which are of no plan's version.
inline constexpr uint32_t kReferenceVersion = 0;

// The number of a policy that no rank has read: its plan comes with the message that orders it.
inline constexpr uint16_t kPostedPolicy = UINT16_MAX;

// Which plan's experts a step runs on, and which ones ranks make ready beside them. Versions only grow; policies are numbered as
// every rank has read them.
struct ExpertOrder {
  uint32_t version = kFirstExpertVersion;  // of all tokens of the step, on all ranks
  uint16_t policy = 0;
  uint32_t staged_version = kFirstExpertVersion;  // the same as version: nothing is made ready
  uint16_t staged_policy = 0;
  uint64_t extra_bytes = 0;  // of each rank's memory, beyond its budget, while old and new experts are both there
  bool is_freeing = false;   // ranks tell when the experts before these are freed
  // The experts that serve are known to be wrong somewhere: those that would stay are held against the checkpoint, and made anew
  // where they differ.
  bool mends = false;

  bool is_staging() const { return staged_version != version; }
  // Whether each rank answers with a StagingReport.
  bool wants_reports() const { return is_staging() || is_freeing; }
};

struct StepPlan {
  int64_t step = 0;
  StepKind kind = StepKind::kIdle;
  uint32_t level_table_version = 1;
  std::vector<std::byte> level_table;  // encoded LevelTable that applies from this step on; empty: the old one stays
  uint32_t placement_version = 1;
  ExpertSet experts = ExpertSet::kServed;  // on which all tokens of the step run
  ExpertOrder expert_order;
  std::string posted_plan = {};            // plan.json of staged_policy kPostedPolicy, in the first step that orders it
  uint32_t guard_term = 0;                 // another one: what was measured of the served experts no longer counts
  ForwardShape shape;  // of kRun
  std::vector<RankPlan> ranks;
};

void encode(const StepPlan& plan, std::vector<std::byte>& out);
// Throws CommError when the bytes are no plan.
StepPlan decode_step_plan(std::span<const std::byte> bytes);

// A rank's answer for one sequence of the plan, in plan order. Plain data of fixed size, so that rank 0 knows the size of
// every answer from its own plan.
struct SequenceResult {
  uint64_t sequence_id = 0;
  double prompt_nll = 0.0;   // nats, sum over the sequence's tokens scored so far
  int32_t num_scored = 0;
  int32_t token_id = -1;     // sampled token, −1 when the plan asked for none
  double kl = 0.0;           // nats, sum over the scored tokens so far, when there is a reference
  int32_t num_flips = 0;     // scored tokens so far whose most probable successor is not the reference's
  // Of this step's tokens, as in SkipUsage:
  int64_t pairs_run = 0;
  int64_t pairs_skipped = 0;
  int64_t bytes_sent = 0;
  int64_t bytes_saved = 0;
  int64_t pairs_shadow = 0;
};

}  // namespace skipper
