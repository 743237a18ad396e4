// Rank 0's half of the guard: which experts a step runs on, which answers are scored again, and what was found.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "cluster/step_plan.h"
#include "engine/request_queue.h"
#include "engine/sequence.h"
#include "guard/guard_config.h"
#include "guard/guard_judge.h"
#include "guard/guard_log.h"
#include "guard/guard_reading.h"
#include "guard/guard_state.h"

namespace skipper {

// Compares nothing while the reference experts serve. Engine thread only, but for state() and arm().
class EngineGuard {
 public:
  // `queue` is where answers to be scored come in again; it outlives the guard. Throws InvalidFile for a log that cannot be
  // written.
  EngineGuard(const GuardConfig& config, std::string served, RequestQueue& queue);

  // Before a step: what operators asked for meanwhile.
  void begin_step();
  // Before a step: other experts serve from here on, and are watched anew, also where the reference has served in their place.
  void serve(uint32_t version, std::string name);
  uint32_t version() const { return state_.version; }
  bool is_on() const { return config_.is_on(); }
  // Any thread may ask.
  ExpertSet serving() const { return serving_; }
  // The reference serves, and some good plan may yet be found.
  bool wants_good_plan() const { return wants_good_plan_; }
  // The last good plan is being made ready; or there is none, and why.
  void return_to(const std::string& name);
  void stay(const std::string& reason);
  uint32_t term() const { return state_.term; }

  // After a step: readings[r] of rank r. A breach makes the reference experts serve from the next step on.
  void end_step(int64_t step, std::span<const GuardReading> readings);
  // A share of answers is scored: first on the reference experts, whose predictions stay, then on the served ones.
  void offer(const Sequence& answered, uint8_t level);

  GuardState state() const;
  // The served experts serve again, from the next step on, and are watched anew. Returns the term that this begins, or the one
  // that it is when they serve already.
  uint32_t arm();
  // False when the term has not begun within `timeout`.
  bool wait_for_term(uint32_t term, std::chrono::milliseconds timeout) const;

 private:
  void score(GenerationRequest request, ExpertSet experts);
  void take_score(const GenerationRequest& request, const TokenEvent& event);
  void roll_back(int64_t step, const GuardBreach& breach);
  bool is_chosen();
  void begin_term(GuardActionKind kind);
  ServedWeights served() const { return {state_.served, static_cast<int64_t>(state_.version)}; }

  GuardConfig config_;
  RequestQueue& queue_;
  GuardJudge judge_;
  GuardLog log_;
  std::atomic<bool> wants_arming_{false};
  std::atomic<ExpertSet> serving_{ExpertSet::kServed};
  bool wants_good_plan_ = false;
  int64_t last_step_ = 0;
  // Answers that were offered so far, whether one of them is being scored, and what its score showed.
  double offered_share_ = 0.0;
  bool is_scoring_ = false;
  std::optional<GuardBreach> breach_of_predictions_;

  mutable std::condition_variable armed_;
  mutable std::mutex mutex_;  // of state_, which only the engine thread changes
  GuardState state_;
};

}  // namespace skipper
