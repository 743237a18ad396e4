// Which sequences run in the next step, on which rank, with how many tokens. Rank 0 only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cluster/step_plan.h"
#include "engine/block_allocator.h"
#include "engine/engine_config.h"
#include "engine/level_map.h"
#include "engine/sequence.h"

namespace skipper {

// Throws InvalidRequest when the request could never run under these limits (context_length_exceeded names both numbers).
void validate_request(const GenerationRequest& request, const EngineConfig& config);

using AnswerObserver = std::function<void(const Sequence& answered, uint8_t level)>;

// Continuous batching over data-parallel ranks. Each step and rank: first one token for every decoding sequence, then prompt
// chunks, oldest sequence first, within max_tokens_per_step; then waiting requests start where the fewest tokens are pending.
// Blocks are taken when they are needed; when a rank has none left, its newest sequence goes back to the waiting ones and is
// later recomputed from prompt and generated tokens, each at the level it first ran at, bit for bit. A chunk has one level.
// Engine thread only.
class Scheduler {
 public:
  Scheduler(const EngineConfig& config, int num_ranks);

  void submit(Submission submission);
  // The level of tokens that first run in the next plan, of requests that follow it.
  void set_global_level(uint8_t level) { global_level_ = level; }
  // In which slots levels run from the next plan on; histories of levels hold slots.
  void set_levels(const LevelMap& levels) { levels_ = levels; }
  // The experts that everything runs on from the next plan on. With kServed, steps for Submission::experts kReference take turns
  // with the others.
  void set_experts(ExpertSet experts) { experts_ = experts; }
  // Events say from now on which versions of the experts their tokens ran on.
  void count_versions() { counts_versions_ = true; }
  // Sees each request that was answered to its end, and the level of its last token; off by default.
  void set_answer_observer(AnswerObserver observer) { answer_observer_ = std::move(observer); }
  // The next step; kIdle when there is nothing to compute or release. admissions[r] = encoded requests for rank r, one after
  // the other.
  StepPlan next_plan(std::vector<std::vector<std::byte>>& admissions);
  // Takes the answers of the ranks to `plan`, delivers events, and frees what has finished.
  void apply(const StepPlan& plan, std::span<const std::vector<SequenceResult>> results);
  // Ends every request with kError and this message, or with kCancelled when it is empty.
  void end_all(const std::string& error);

  // Of all requests that have not ended.
  PolicyFloor strictest_floor() const;
  bool has_work() const { return !waiting_.empty() || num_running() > 0 || has_releases(); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_running() const;
  int64_t num_preemptions() const { return num_preemptions_; }
  double kv_used_fraction() const;

 private:
  using SequencePtr = std::unique_ptr<Sequence>;

  struct RankState {
    explicit RankState(int64_t num_blocks) : blocks(num_blocks) {}
    BlockAllocator blocks;
    std::vector<SequencePtr> running;   // ascending start_order
    std::vector<uint64_t> released;     // goes into the next plan
    // Of the step being planned:
    int64_t tokens_left = 0;
    int64_t logit_rows_left = 0;
    bool short_of_blocks = false;
    bool only_decodes = true;
  };

  bool has_releases() const;
  void begin_step();
  ExpertSet next_experts() const;
  bool runs_now(const Sequence& sequence) const;
  bool can_run(ExpertSet experts) const;
  ForwardShape planned_shape() const;
  void drop_cancelled();
  void plan_decodes(int rank, RankPlan& plan);
  void plan_prefills(int rank, RankPlan& plan);
  void start_waiting(StepPlan& plan, std::vector<std::vector<std::byte>>& admissions);
  int rank_for(const Sequence& sequence) const;
  void start(size_t waiting_index, int rank, RankPlan& plan, std::vector<std::byte>& admissions);
  int32_t chunk_size(const RankState& rank, const Sequence& sequence) const;
  int64_t blocks_missing(const Sequence& sequence, int32_t num_tokens) const;
  bool take_blocks(RankState& rank, Sequence& sequence, int32_t num_tokens, const RankPlan& plan);
  void add_to_plan(RankState& rank, Sequence& sequence, int32_t num_tokens, RankPlan& plan);
  void preempt(RankState& rank, size_t index);
  void release(RankState& rank, Sequence& sequence);
  void apply_result(RankState& rank, const SequenceStep& step, const SequenceResult& result, uint32_t version);
  void finish(RankState& rank, size_t index, FinishReason reason);

  EngineConfig config_;
  std::vector<RankState> ranks_;
  std::deque<SequencePtr> waiting_;
  uint8_t global_level_ = 0;
  LevelMap levels_;
  ExpertSet experts_ = ExpertSet::kServed;
  ExpertSet step_experts_ = ExpertSet::kServed;  // of the step planned last
  AnswerObserver answer_observer_;
  bool counts_versions_ = false;
  int64_t next_step_ = 0;
  uint64_t next_start_order_ = 0;
  int64_t num_preemptions_ = 0;
};

}  // namespace skipper
