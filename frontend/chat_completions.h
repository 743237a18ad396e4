// POST /v1/chat/completions: one request from its JSON to the events or the body of its response.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "frontend/choice_text.h"
#include "frontend/http_error.h"
#include "frontend/http_message.h"
#include "frontend/openai_api.h"
#include "frontend/openai_responses.h"
#include "frontend/serving_context.h"
#include "frontend/token_outbox.h"

namespace skipper {

// Started on a processor thread, then used by its connection's thread alone; only the outbox is shared with the engine.
class ChatCompletion {
 public:
  // Parses, processes and submits. Throws what refuses the request: InvalidRequest, ResourceExhausted, Cancelled.
  static std::shared_ptr<ChatCompletion> start(const HttpRequest& request, std::shared_ptr<const ServingContext> context);

  // Cancels what still runs.
  ~ChatCompletion();

  ResponseMode mode() const { return mode_; }
  // Says when there is something for advance().
  TokenOutbox& outbox() { return *outbox_; }

  struct Progress {
    std::string events = "";         // kStreamed: server-sent events to write now
    std::optional<HttpError> error = {};  // the response ends with it
    bool finished = false;
  };
  // Takes what the engine delivered. Must not be called again after `error` or `finished`.
  Progress advance();

  // kWhole, after `finished`.
  HttpResponse response() const;

 private:
  struct Choice {
    explicit Choice(ChoiceText empty_text) : text(std::move(empty_text)) {}

    ChoiceText text;
    CompletedChoice completed;
    std::shared_ptr<std::atomic<bool>> cancelled = std::make_shared<std::atomic<bool>>(false);
    int64_t num_tokens = 0;
    uint8_t level = 0;
    SkipUsage skipping;  // of the steps so far
    std::vector<VersionTokens> versions;  // the same
    std::chrono::steady_clock::time_point last_token;
    bool finished = false;
  };

  ChatCompletion(const HttpRequest& request, const ChatRequest& chat, std::shared_ptr<const ServingContext> context);
  void submit(GenerationRequest request, const PolicyFloor& floor);
  void apply(const ChoiceEvent& event, Progress& progress);
  void record_token(Choice& choice);
  void append_events(int64_t index, const ChoiceDelta& delta, Progress& progress);
  void finish(Choice& choice, FinishReason reason);
  void cancel();
  double seconds_since_arrival() const;
  TokenUsage usage() const;
  void add_plans(TokenUsage& usage) const;

  const std::shared_ptr<const ServingContext> context_;
  const CompletionIdentity identity_;
  const ResponseMode mode_;
  const bool include_usage_;
  const CompletionChunks chunks_;
  const std::chrono::steady_clock::time_point arrival_;
  std::shared_ptr<TokenOutbox> outbox_;
  std::vector<Choice> choices_;
  int64_t num_prompt_tokens_ = 0;
  size_t num_finished_ = 0;
};

}  // namespace skipper
