#include "fake_engine.h"

#include <utility>

#include "base/error.h"

namespace skipper {

FakeEngine::FakeEngine() : thread_([this] { run(); }) {}

FakeEngine::~FakeEngine() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

SkipUsage FakeEngine::usage_after(int64_t num_generated) {
  return {.pairs_run = 8 * num_generated,
          .pairs_skipped = num_generated,
          .bytes_sent = 100 * num_generated,
          .bytes_saved = 3,
          .pairs_shadow = 2 * num_generated};
}

EngineHooks FakeEngine::hooks() {
  const auto policy_of = [](uint32_t version) {
    return version == 1 ? PolicyTraits{.name = "quality", .expert_bits = 8.0} : PolicyTraits{.name = "small", .expert_bits = 4.0};
  };
  return {.submit = [this](Submission submission) { return submit(std::move(submission)); },
          .status = [this] { return status_now; },
          .policy_of = switch_at >= 0 ? std::function<PolicyTraits(uint32_t)>(policy_of) : nullptr};
}

uint64_t FakeEngine::submit(Submission submission) {
  const std::lock_guard lock(mutex_);
  if (incoming_.size() + static_cast<size_t>(num_active_) >= queue_capacity) throw ResourceExhausted("the queue is full");
  submission.request.id = requests_.size() + 1;
  requests_.push_back(submission.request);
  floors_.push_back(submission.floor);
  const std::string prompt(submission.request.prompt_ids.begin(), submission.request.prompt_ids.end());
  incoming_.push_back({.submission = submission, .text = answer ? answer(submission.request) : prompt});
  changed_.notify_all();
  return submission.request.id;
}

void FakeEngine::run() {
  std::vector<Active> active;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !active.empty() || !incoming_.empty(); });
      if (stopping_) return;
      for (Active& submission : incoming_) active.push_back(std::move(submission));
      incoming_.clear();
      num_active_ = static_cast<int>(active.size());
    }
    if (step.count() > 0) std::this_thread::sleep_for(step);
    std::erase_if(active, [this](Active& request) { return !advance(request); });
    num_active_ = static_cast<int>(active.size());
  }
}

// False when the request is over.
bool FakeEngine::advance(Active& active) {
  const Submission& submission = active.submission;
  TokenEvent event;
  event.request_id = submission.request.id;
  if (submission.cancelled->load()) {
    ++num_cancelled_;
    event.finish_reason = FinishReason::kCancelled;
    submission.sink(event);
    return false;
  }
  if (active.num_generated == fail_at) {
    event.finish_reason = FinishReason::kError;
    event.error = "rank 2 was lost";
    submission.sink(event);
    return false;
  }
  const auto position = static_cast<size_t>(active.num_generated);
  event.token_id = position < active.text.size() ? static_cast<uint8_t>(active.text[position]) : kFakeEnd;
  event.num_generated = ++active.num_generated;
  for (const int32_t stop : submission.request.stop_token_ids) {
    if (stop == event.token_id) event.finish_reason = FinishReason::kStop;
  }
  if (event.finish_reason == FinishReason::kNone && event.num_generated == submission.request.max_new_tokens) {
    event.finish_reason = FinishReason::kLength;
  }
  event.level = kFakeLevel;
  event.usage = usage_after(active.num_generated);
  if (switch_at >= 0) add_tokens({1, std::min<int64_t>(switch_at, active.num_generated)}, event.versions);
  if (switch_at >= 0 && active.num_generated > switch_at) add_tokens({2, active.num_generated - switch_at}, event.versions);
  if (!submission.sink(event)) {  // cancelled since we looked, or nobody takes its events
    ++num_cancelled_;
    return false;
  }
  return event.finish_reason == FinishReason::kNone;
}

std::vector<PolicyFloor> FakeEngine::floors() {
  const std::lock_guard lock(mutex_);
  return floors_;
}

std::vector<GenerationRequest> FakeEngine::requests() {
  const std::lock_guard lock(mutex_);
  return requests_;
}

int FakeEngine::num_active() { return num_active_; }

bool FakeEngine::eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

ChatProcessor fake_processor() {
  const auto process = [](const std::vector<ChatMessage>& messages) {
    ProcessedPrompt prompt;
    for (const ChatMessage& message : messages) {
      for (const ChatPart& part : message.parts) {
        for (const char c : part.text) prompt.token_ids.push_back(static_cast<uint8_t>(c));
        if (part.kind != ChatPart::Kind::kImage) continue;
        prompt.token_ids.push_back(0);
        prompt.images.push_back({.grid_h = 1, .grid_w = 1, .pixels = std::vector<float>(part.image.size())});
      }
    }
    return prompt;
  };
  const auto make_decoder = [] {
    return TokenTextDecoder{
        .push = [](int32_t id) { return id < 256 ? std::string(1, static_cast<char>(id)) : std::string(); },
        .flush = [] { return std::string(); }};
  };
  return {.process = process, .make_decoder = make_decoder};
}

ServedModel fake_model() {
  return {.name = "demo",
          .max_model_len = 4096,
          .vocab_size = kFakeVocab,
          .created = 1'700'000'000,
          .temperature = 0.0,
          .end_token_ids = {kFakeEnd},
          .service_tiers = {}};
}

}  // namespace skipper
