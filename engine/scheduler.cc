#include "engine/scheduler.h"

#include <glog/logging.h>

#include <algorithm>

#include "base/error.h"

namespace skipper {
namespace {

// A request travels to its rank in one message, and MPI counts bytes in 31 bits.
constexpr size_t kMaxPixelBytes = size_t{1} << 30;

void deliver(Sequence& sequence, const LevelMap& levels, TokenEvent event) {
  event.request_id = sequence.request().id;
  event.num_generated = static_cast<int32_t>(sequence.request().generated_ids.size());
  event.level = levels.level_of_slot[sequence.request().level_history.latest()];
  event.usage = sequence.usage;
  event.versions = sequence.versions;
  const bool wants_more = sequence.submission.sink(event);
  if (!wants_more && sequence.submission.cancelled) sequence.submission.cancelled->store(true, std::memory_order_relaxed);
}

bool contains(std::span<const SequenceStep> steps, uint64_t sequence_id) {
  return std::any_of(steps.begin(), steps.end(), [&](const SequenceStep& s) { return s.sequence_id == sequence_id; });
}

FinishReason finish_reason(const GenerationRequest& request, const EngineConfig& config) {
  const int32_t last = request.generated_ids.back();
  const auto& stops = request.stop_token_ids;
  if (std::find(stops.begin(), stops.end(), last) != stops.end()) return FinishReason::kStop;
  const auto num_generated = static_cast<int64_t>(request.generated_ids.size());
  if (num_generated >= request.max_new_tokens) return FinishReason::kLength;
  const auto num_prompt = static_cast<int64_t>(request.prompt_ids.size());
  return num_prompt + num_generated >= config.max_model_len ? FinishReason::kLength : FinishReason::kNone;
}

}  // namespace

void validate_request(const GenerationRequest& request, const EngineConfig& config) {
  const auto num_prompt = static_cast<int64_t>(request.prompt_ids.size());
  if (num_prompt == 0) throw InvalidRequest("the prompt is empty; send at least one token", "messages");
  // A generated token needs a place too; scoring needs none.
  const int64_t longest = config.max_model_len - (request.score_prompt ? 0 : 1);
  if (num_prompt > longest) {
    throw InvalidRequest("the prompt has " + std::to_string(num_prompt) + " tokens, but this model's context length is " +
                             std::to_string(config.max_model_len) + " tokens, one of them for the answer; shorten the messages",
                         "messages", "context_length_exceeded");
  }
  size_t num_pixel_bytes = 0;
  for (const ImagePatches& image : request.images) num_pixel_bytes += image.pixels.size() * sizeof(float);
  if (num_pixel_bytes > kMaxPixelBytes) {
    throw InvalidRequest("the images take " + std::to_string(num_pixel_bytes) + " bytes after resizing, more than the limit of " +
                             std::to_string(kMaxPixelBytes) + "; send fewer or smaller ones",
                         "messages");
  }
  if (request.score_prompt && num_prompt > 1 && (request.score_from < 1 || request.score_from >= num_prompt)) {
    throw InvalidRequest("score_from is " + std::to_string(request.score_from) + "; expected 1 to " +
                             std::to_string(num_prompt - 1) + ", the last token",
                         "score_from");
  }
  if (request.reference != ReferenceUse::kNone && (!request.score_prompt || request.rank < 0)) {
    throw InvalidRequest("a reference needs score_prompt, and the rank that keeps it", "reference");
  }
  if (!request.score_prompt && request.max_new_tokens < 1) {
    throw InvalidRequest("max_tokens is " + std::to_string(request.max_new_tokens) + "; expected at least 1", "max_tokens");
  }
}

Scheduler::Scheduler(const EngineConfig& config, int num_ranks) : config_(config) {
  for (int rank = 0; rank < num_ranks; ++rank) ranks_.emplace_back(config.kv_blocks_per_rank);
}

void Scheduler::submit(Submission submission) {
  auto sequence = std::make_unique<Sequence>();
  sequence->submission = std::move(submission);
  waiting_.push_back(std::move(sequence));
}

int64_t Scheduler::num_running() const {
  int64_t total = 0;
  for (const RankState& rank : ranks_) total += static_cast<int64_t>(rank.running.size());
  return total;
}

PolicyFloor Scheduler::strictest_floor() const {
  PolicyFloor strictest;
  const auto take = [&](const SequencePtr& sequence) {
    if (sequence->submission.floor.lowest < strictest.lowest) strictest = sequence->submission.floor;
  };
  for (const RankState& rank : ranks_) std::ranges::for_each(rank.running, take);
  std::ranges::for_each(waiting_, take);
  return strictest;
}

double Scheduler::kv_used_fraction() const {
  int64_t used = 0;
  int64_t total = 0;
  for (const RankState& rank : ranks_) {
    used += rank.blocks.num_blocks() - rank.blocks.num_free();
    total += rank.blocks.num_blocks();
  }
  return static_cast<double>(used) / static_cast<double>(total);
}

bool Scheduler::has_releases() const {
  return std::any_of(ranks_.begin(), ranks_.end(), [](const RankState& rank) { return !rank.released.empty(); });
}

StepPlan Scheduler::next_plan(std::vector<std::vector<std::byte>>& admissions) {
  drop_cancelled();
  StepPlan plan;
  plan.step = next_step_++;
  plan.ranks.resize(ranks_.size());
  admissions.assign(ranks_.size(), {});
  begin_step();
  plan.experts = step_experts_;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    plan_decodes(static_cast<int>(r), plan.ranks[r]);
    plan_prefills(static_cast<int>(r), plan.ranks[r]);
  }
  start_waiting(plan, admissions);
  bool anything = false;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    // Last, because planning itself can preempt.
    plan.ranks[r].released.swap(ranks_[r].released);
    anything = anything || !plan.ranks[r].sequences.empty();
  }
  plan.kind = anything ? StepKind::kRun : StepKind::kIdle;
  plan.shape = planned_shape();
  return plan;
}

void Scheduler::begin_step() {
  for (RankState& rank : ranks_) {
    rank.tokens_left = config_.max_tokens_per_step;
    rank.logit_rows_left = config_.max_logit_rows;
    rank.short_of_blocks = false;
    rank.only_decodes = true;
  }
  step_experts_ = next_experts();
}

// A step has one set of experts. The two take turns while both have work.
ExpertSet Scheduler::next_experts() const {
  if (experts_ == ExpertSet::kReference || !can_run(ExpertSet::kReference)) return experts_;
  const bool was_served = step_experts_ == ExpertSet::kServed;
  return was_served || !can_run(ExpertSet::kServed) ? ExpertSet::kReference : ExpertSet::kServed;
}

bool Scheduler::runs_now(const Sequence& sequence) const {
  return experts_ == ExpertSet::kReference || sequence.submission.experts == step_experts_;
}

bool Scheduler::can_run(ExpertSet experts) const {
  const auto is_of_set = [&](const SequencePtr& sequence) { return sequence->submission.experts == experts; };
  for (const RankState& rank : ranks_) {
    if (std::ranges::any_of(rank.running, is_of_set)) return true;
  }
  return std::ranges::any_of(waiting_, [&](const SequencePtr& s) { return is_of_set(s) && rank_for(*s) >= 0; });
}

ForwardShape Scheduler::planned_shape() const {
  ForwardShape shape{.is_decode = true};
  for (const RankState& rank : ranks_) {
    const int64_t num_rows = config_.max_tokens_per_step - rank.tokens_left;
    const int64_t num_logit_rows = config_.max_logit_rows - rank.logit_rows_left;
    shape.most_rows = std::max(shape.most_rows, static_cast<int32_t>(num_rows));
    shape.most_logit_rows = std::max(shape.most_logit_rows, static_cast<int32_t>(num_logit_rows));
    shape.is_decode = shape.is_decode && rank.only_decodes;
  }
  return shape;
}

void Scheduler::drop_cancelled() {
  for (RankState& rank : ranks_) {
    for (size_t i = rank.running.size(); i-- > 0;) {
      if (rank.running[i]->cancelled()) finish(rank, i, FinishReason::kCancelled);
    }
  }
  for (size_t i = waiting_.size(); i-- > 0;) {
    if (!waiting_[i]->cancelled()) continue;
    deliver(*waiting_[i], levels_, {.finish_reason = FinishReason::kCancelled, .error = {}});
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void Scheduler::plan_decodes(int rank, RankPlan& plan) {
  RankState& state = ranks_[static_cast<size_t>(rank)];
  // By index: taking blocks may preempt sequences behind i.
  for (size_t i = 0; i < state.running.size(); ++i) {
    Sequence& sequence = *state.running[i];
    if (!runs_now(sequence) || !sequence.decoding() || chunk_size(state, sequence) == 0) continue;
    if (take_blocks(state, sequence, 1, plan)) add_to_plan(state, sequence, 1, plan);
  }
}

void Scheduler::plan_prefills(int rank, RankPlan& plan) {
  RankState& state = ranks_[static_cast<size_t>(rank)];
  for (size_t i = 0; i < state.running.size(); ++i) {
    Sequence& sequence = *state.running[i];
    if (!runs_now(sequence) || sequence.decoding()) continue;
    const int32_t num_tokens = chunk_size(state, sequence);
    if (num_tokens > 0 && take_blocks(state, sequence, num_tokens, plan)) add_to_plan(state, sequence, num_tokens, plan);
  }
}

// Late binding: a request gets its rank only when that rank has room for its first chunk in this very step.
void Scheduler::start_waiting(StepPlan& plan, std::vector<std::vector<std::byte>>& admissions) {
  size_t next = 0;
  while (next < waiting_.size()) {
    if (!runs_now(*waiting_[next])) {
      ++next;
      continue;
    }
    const int rank = rank_for(*waiting_[next]);
    if (rank < 0) return;
    start(next, rank, plan.ranks[static_cast<size_t>(rank)], admissions[static_cast<size_t>(rank)]);
  }
}

void Scheduler::start(size_t waiting_index, int rank, RankPlan& plan, std::vector<std::byte>& admissions) {
  RankState& state = ranks_[static_cast<size_t>(rank)];
  SequencePtr sequence = std::move(waiting_[waiting_index]);
  waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(waiting_index));
  sequence->rank = rank;
  sequence->start_order = next_start_order_++;
  const size_t bytes_before = admissions.size();
  encode(sequence->request(), admissions);
  plan.admission_bytes.push_back(admissions.size() - bytes_before);
  const int32_t num_tokens = chunk_size(state, *sequence);
  CHECK(take_blocks(state, *sequence, num_tokens, plan));
  add_to_plan(state, *sequence, num_tokens, plan);
  state.running.push_back(std::move(sequence));
}

// The rank with the fewest pending tokens among those that can start the sequence now; −1 when none can.
int Scheduler::rank_for(const Sequence& sequence) const {
  int best = -1;
  int64_t best_pending = 0;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    const RankState& rank = ranks_[r];
    if (sequence.request().rank >= 0 && sequence.request().rank != static_cast<int32_t>(r)) continue;
    if (static_cast<int64_t>(rank.running.size()) >= config_.max_sequences_per_rank || rank.short_of_blocks) continue;
    const int32_t num_tokens = chunk_size(rank, sequence);
    if (num_tokens == 0 || blocks_missing(sequence, num_tokens) > rank.blocks.num_free()) continue;
    int64_t pending = 0;
    for (const SequencePtr& running : rank.running) pending += running->num_pending();
    if (best >= 0 && pending >= best_pending) continue;
    best = static_cast<int>(r);
    best_pending = pending;
  }
  return best;
}

int32_t Scheduler::chunk_size(const RankState& rank, const Sequence& sequence) const {
  const GenerationRequest& request = sequence.request();
  const auto affordable = static_cast<int32_t>(std::min<int64_t>(sequence.num_pending(), rank.tokens_left));
  const int64_t num_tokens =
      request.level_history.uniform_length(sequence.num_computed, affordable, sequence.current_slot(global_level_, levels_));
  if (request.score_prompt) return static_cast<int32_t>(std::min(num_tokens, rank.logit_rows_left));
  // The last chunk samples; without a row for its logits it has to wait.
  const bool is_last = num_tokens == sequence.num_pending();
  return static_cast<int32_t>(is_last && rank.logit_rows_left == 0 ? 0 : num_tokens);
}

int64_t Scheduler::blocks_missing(const Sequence& sequence, int32_t num_tokens) const {
  const int64_t tokens = sequence.num_computed + num_tokens;
  const int64_t needed = (tokens + config_.kv_block_size - 1) / config_.kv_block_size;
  return needed - static_cast<int64_t>(sequence.blocks.size());
}

// True when the sequence has blocks for `num_tokens` more. Preempts newer sequences that this step has not planned yet.
bool Scheduler::take_blocks(RankState& rank, Sequence& sequence, int32_t num_tokens, const RankPlan& plan) {
  const int64_t missing = blocks_missing(sequence, num_tokens);
  while (missing > rank.blocks.num_free()) {
    rank.short_of_blocks = true;
    if (rank.running.empty()) return false;
    const Sequence& newest = *rank.running.back();
    if (newest.start_order <= sequence.start_order || contains(plan.sequences, newest.request().id)) return false;
    preempt(rank, rank.running.size() - 1);
  }
  return true;
}

void Scheduler::add_to_plan(RankState& rank, Sequence& sequence, int32_t num_tokens, RankPlan& plan) {
  SequenceStep step;
  step.sequence_id = sequence.request().id;
  step.start = sequence.num_computed;
  step.num_tokens = num_tokens;
  LevelHistory& levels = sequence.submission.request.level_history;
  levels.record(step.start + num_tokens, sequence.current_slot(global_level_, levels_));
  step.level = levels.level_at(step.start, 0);
  step.sample = num_tokens == sequence.num_pending() && !sequence.request().score_prompt;
  rank.only_decodes = rank.only_decodes && num_tokens == 1 && step.sample && !sequence.may_be_image(step.start);
  const int64_t missing = blocks_missing(sequence, num_tokens);
  if (missing > 0) rank.blocks.allocate(missing, step.new_blocks);
  sequence.blocks.insert(sequence.blocks.end(), step.new_blocks.begin(), step.new_blocks.end());
  rank.tokens_left -= num_tokens;
  rank.logit_rows_left -= sequence.request().score_prompt ? num_tokens : (step.sample ? 1 : 0);
  plan.sequences.push_back(std::move(step));
}

void Scheduler::preempt(RankState& rank, size_t index) {
  SequencePtr sequence = std::move(rank.running[index]);
  rank.running.erase(rank.running.begin() + static_cast<std::ptrdiff_t>(index));
  release(rank, *sequence);
  sequence->rank = -1;
  sequence->num_computed = 0;
  waiting_.push_front(std::move(sequence));
  ++num_preemptions_;
}

void Scheduler::release(RankState& rank, Sequence& sequence) {
  rank.released.push_back(sequence.request().id);
  rank.blocks.release(sequence.blocks);
}

void Scheduler::finish(RankState& rank, size_t index, FinishReason reason) {
  const SequencePtr sequence = std::move(rank.running[index]);
  rank.running.erase(rank.running.begin() + static_cast<std::ptrdiff_t>(index));
  release(rank, *sequence);
  if (reason == FinishReason::kCancelled) deliver(*sequence, levels_, {.finish_reason = reason, .error = {}});
}

void Scheduler::apply(const StepPlan& plan, std::span<const std::vector<SequenceResult>> results) {
  CHECK_EQ(results.size(), ranks_.size());
  const uint32_t version = plan.experts == ExpertSet::kReference ? kReferenceVersion : plan.expert_order.version;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    const std::vector<SequenceStep>& steps = plan.ranks[r].sequences;
    CHECK_EQ(results[r].size(), steps.size());
    for (size_t i = 0; i < steps.size(); ++i) apply_result(ranks_[r], steps[i], results[r][i], version);
  }
}

void Scheduler::apply_result(RankState& rank, const SequenceStep& step, const SequenceResult& result, uint32_t version) {
  CHECK_EQ(step.sequence_id, result.sequence_id);
  const auto found = std::find_if(rank.running.begin(), rank.running.end(),
                                  [&](const SequencePtr& s) { return s->request().id == step.sequence_id; });
  CHECK(found != rank.running.end());
  Sequence& sequence = **found;
  sequence.num_computed += step.num_tokens;
  sequence.usage += {result.pairs_run, result.pairs_skipped, result.bytes_sent, result.bytes_saved, result.pairs_shadow};
  if (counts_versions_) add_tokens({version, step.num_tokens}, sequence.versions);
  TokenEvent event;
  if (step.sample) {
    event.token_id = result.token_id;
    sequence.submission.request.generated_ids.push_back(result.token_id);
    event.finish_reason = finish_reason(sequence.request(), config_);
  } else if (sequence.request().score_prompt && sequence.num_pending() == 0) {
    event.prompt_nll = result.prompt_nll;
    event.num_scored = result.num_scored;
    event.distance = {result.kl, result.num_flips};
    event.finish_reason = FinishReason::kStop;
  }
  if (step.sample || event.finish_reason != FinishReason::kNone) deliver(sequence, levels_, event);
  if (event.finish_reason == FinishReason::kNone) return;
  if (answer_observer_ && step.sample) {
    answer_observer_(sequence, levels_.level_of_slot[sequence.request().level_history.latest()]);
  }
  finish(rank, static_cast<size_t>(found - rank.running.begin()), event.finish_reason);
}

void Scheduler::end_all(const std::string& error) {
  const FinishReason reason = error.empty() ? FinishReason::kCancelled : FinishReason::kError;
  for (RankState& rank : ranks_) {
    while (!rank.running.empty()) {
      deliver(*rank.running.back(), levels_, {.finish_reason = reason, .error = error});
      finish(rank, rank.running.size() - 1, FinishReason::kError);
    }
  }
  for (const SequencePtr& sequence : waiting_) deliver(*sequence, levels_, {.finish_reason = reason, .error = error});
  waiting_.clear();
}

}  // namespace skipper
