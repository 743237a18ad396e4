// An engine without a model: it answers each prompt with tokens a test chooses, on a thread of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "frontend/serving_context.h"

namespace skipper {

// Token ids are byte values; kEnd ends an answer.
inline constexpr int32_t kFakeEnd = 256;
inline constexpr int64_t kFakeVocab = 300;
inline constexpr uint8_t kFakeLevel = 2;  // that all tokens claim to have run at

class FakeEngine {
 public:
  FakeEngine();
  ~FakeEngine();

  // The text a request is answered with, without its end. Default: the prompt's text.
  std::function<std::string(const GenerationRequest&)> answer;
  // An error event instead of token number `fail_at` (0: the first).
  int fail_at = -1;
  std::chrono::milliseconds step{0};
  size_t queue_capacity = 64;
  // Set before the server starts.
  EngineStatus status_now{.phase = EngineStatus::Phase::kIdle, .highest_level = 5, .expert_bits_per_weight = 4.5};

  EngineHooks hooks();
  // Set before the server starts: tokens from this one on run on version 2, "small"; −1: nothing is switched.
  int switch_at = -1;
  // What a request reports after so many tokens.
  static SkipUsage usage_after(int64_t num_generated);

  // Seen so far.
  std::vector<GenerationRequest> requests();
  std::vector<PolicyFloor> floors();
  int num_cancelled() const { return num_cancelled_; }
  int num_active();
  // Waits for `condition`, at most 20 s.
  bool eventually(const std::function<bool()>& condition);

 private:
  struct Active {
    Submission submission;
    std::string text;
    int32_t num_generated = 0;
  };

  uint64_t submit(Submission submission);
  void run();
  bool advance(Active& active);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<GenerationRequest> requests_;
  std::vector<PolicyFloor> floors_;
  std::vector<Active> incoming_;
  std::atomic<int> num_active_{0};
  std::atomic<int> num_cancelled_{0};
  bool stopping_ = false;
  std::thread thread_;
};

// The prompt is the text of all messages, a byte a token; an image is one token 0 and a patch as large as its file.
ChatProcessor fake_processor();

ServedModel fake_model();

}  // namespace skipper
