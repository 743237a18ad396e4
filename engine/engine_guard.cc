#include "engine/engine_guard.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace skipper {
namespace {

// A rank keeps as many rows of logits while an answer is scored.
constexpr int32_t kMostScoredTokens = 32;
// No caller of the engine counts so far.
constexpr uint64_t kGuardReference = UINT64_MAX;

const ServedWeights kReferenceWeights{"reference", kReferenceVersion};

// The end of an answer, as it was generated, to be predicted again.
GenerationRequest scoring_request(const Sequence& answered, uint8_t level) {
  const GenerationRequest& request = answered.request();
  const auto num_prompt = static_cast<int32_t>(request.prompt_ids.size());
  GenerationRequest scoring;
  scoring.prompt_ids = request.prompt_ids;
  scoring.prompt_ids.insert(scoring.prompt_ids.end(), request.generated_ids.begin(), request.generated_ids.end());
  scoring.images = request.images;
  scoring.level = level;
  scoring.score_prompt = true;
  scoring.score_from = std::max(num_prompt, answered.num_tokens() - kMostScoredTokens);
  scoring.answer_from = num_prompt;
  scoring.reference = ReferenceUse::kKeep;
  scoring.reference_id = kGuardReference;
  scoring.rank = answered.rank;
  return scoring;
}

}  // namespace

EngineGuard::EngineGuard(const GuardConfig& config, std::string served, RequestQueue& queue)
    : config_(config), queue_(queue), judge_(config), log_(config.is_on() ? config.log : std::string()) {
  state_.served = std::move(served);
}

void EngineGuard::begin_step() {
  if (!wants_arming_.exchange(false) || serving() == ExpertSet::kServed) return;
  const std::lock_guard lock(mutex_);
  begin_term(GuardActionKind::kArm);
}

void EngineGuard::serve(uint32_t version, std::string name) {
  const std::lock_guard lock(mutex_);
  state_.version = version;
  state_.served = std::move(name);
  begin_term(GuardActionKind::kReturn);
}

// The served experts serve from here on; a line when the reference did before.
void EngineGuard::begin_term(GuardActionKind kind) {
  if (config_.is_on() && serving() == ExpertSet::kReference) {
    log_.write({.kind = kind, .step = last_step_, .term = state_.term, .from = kReferenceWeights, .to = served()});
  }
  serving_ = state_.serving = ExpertSet::kServed;
  ++state_.term;
  state_.breach.reset();
  state_.worst = {};
  state_.returns_to.clear();
  state_.stays.clear();
  wants_good_plan_ = false;
  breach_of_predictions_.reset();
  judge_.forget();
  armed_.notify_all();
}

void EngineGuard::return_to(const std::string& name) {
  const std::lock_guard lock(mutex_);
  state_.returns_to = name;
}

void EngineGuard::stay(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  wants_good_plan_ = false;
  state_.returns_to.clear();
  state_.stays = reason;
}

uint32_t EngineGuard::arm() {
  const std::lock_guard lock(mutex_);
  if (serving() == ExpertSet::kServed) return state_.term;
  wants_arming_ = true;
  return state_.term + 1;
}

bool EngineGuard::wait_for_term(uint32_t term, std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  return armed_.wait_for(lock, timeout, [&] { return state_.term >= term; });
}

void EngineGuard::end_step(int64_t step, std::span<const GuardReading> readings) {
  last_step_ = step;
  if (!config_.is_on() || serving() == ExpertSet::kReference) return;
  GuardReading sums;
  for (const GuardReading& one : readings) {
    sums.num_rows_so_far += one.num_rows_so_far;
    sums.error_so_far += one.error_so_far;
    sums.output_so_far += one.output_so_far;
  }
  {
    const std::lock_guard lock(mutex_);
    state_.num_rows = sums.num_rows_so_far;
    state_.relative_error = sums.error_so_far == 0.0 ? 0.0 : std::sqrt(sums.error_so_far / sums.output_so_far);
    state_.worst = *std::ranges::max_element(readings, {}, &GuardReading::excess);
  }
  const auto breach = judge_.judge(readings);
  if (breach) return roll_back(step, *breach);
  if (breach_of_predictions_) roll_back(step, *std::exchange(breach_of_predictions_, std::nullopt));
}

void EngineGuard::roll_back(int64_t step, const GuardBreach& breach) {
  const std::lock_guard lock(mutex_);
  serving_ = state_.serving = ExpertSet::kReference;
  wants_good_plan_ = true;
  state_.breach = breach;
  state_.rollback_step = step;
  ++state_.num_rollbacks;
  breach_of_predictions_.reset();
  LOG(ERROR) << "the served experts are not what they should be: " << breach.text() << "; reference experts serve from step "
             << step + 1 << " on";
  log_.write({.step = step, .term = state_.term, .from = served(), .to = kReferenceWeights, .breach = &breach});
}

// Evenly: with a share of 0.25 every fourth.
bool EngineGuard::is_chosen() {
  offered_share_ += config_.request_share;
  if (offered_share_ < 1.0) return false;
  offered_share_ -= 1.0;
  return true;
}

void EngineGuard::offer(const Sequence& answered, uint8_t level) {
  if (serving() == ExpertSet::kReference || !is_chosen() || is_scoring_) return;
  score(scoring_request(answered, level), ExpertSet::kReference);
}

void EngineGuard::score(GenerationRequest request, ExpertSet experts) {
  is_scoring_ = true;
  Submission submission{.request = request, .sink = nullptr, .cancelled = nullptr, .experts = experts};
  submission.sink = [this, request = std::move(request)](const TokenEvent& event) {
    take_score(request, event);
    return true;
  };
  try {
    queue_.push(std::move(submission));
  } catch (const Error&) {
    is_scoring_ = false;  // clients come first, and a server that ends scores nothing
  }
}

// Events come on the engine thread.
void EngineGuard::take_score(const GenerationRequest& request, const TokenEvent& event) {
  is_scoring_ = false;
  if (event.finish_reason != FinishReason::kStop || serving() == ExpertSet::kReference) return;
  if (request.reference == ReferenceUse::kKeep) {
    GenerationRequest again = request;
    again.reference = ReferenceUse::kCompare;
    return score(std::move(again), ExpertSet::kServed);
  }
  breach_of_predictions_ = judge_.judge_predictions(event.distance.kl, event.num_scored);
  const std::lock_guard lock(mutex_);
  state_.mean_kl = judge_.mean_kl();
  state_.num_scored_tokens += event.num_scored;
}

GuardState EngineGuard::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

}  // namespace skipper
