// What the frontend calls and serves, as plain functions and values: the launcher fills it in, tests put fakes there.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cluster/switch_state.h"
#include "engine/generation_request.h"
#include "frontend/frontend_config.h"
#include "frontend/openai_api.h"
#include "metrics/metrics_registry.h"
#include "processor/chat_message.h"
#include "processor/processed_prompt.h"

namespace skipper {

struct EngineStatus {
  enum class Phase : uint8_t { kLoading, kIdle, kStepping, kFailed };
  Phase phase = Phase::kLoading;
  std::chrono::milliseconds age{0};  // since the phase began: in kStepping, the age of the step
  bool draining = false;             // takes no new work
  bool queue_full = false;
  int highest_level = 0;             // a request may ask for
  std::vector<uint16_t> level_places = {};  // of the levels, for ceilings (LevelLimits::places)
  double expert_bits_per_weight = 0.0;  // of the formats that experts are held in
};

struct EngineHooks {
  // Gives the request its id. Throws ResourceExhausted when the queue is full, Cancelled when draining or while the experts that
  // serve are below the request's floor. Thread-safe.
  std::function<uint64_t(Submission)> submit;
  std::function<EngineStatus()> status;  // thread-safe, must not block
  // The policy of a version of the experts. Thread-safe, must not block; null where no experts are switched.
  std::function<PolicyTraits(uint32_t version)> policy_of = nullptr;
};

// Token by token from ids to UTF-8, never half a character. Belongs to one choice.
struct TokenTextDecoder {
  std::function<std::string(int32_t)> push;
  std::function<std::string()> flush;  // what was held back when no token follows
};

struct ChatProcessor {
  // Chat template, tokenizer, image decoding: slow, called on a processor thread. Throws InvalidRequest. Thread-safe.
  std::function<ProcessedPrompt(const std::vector<ChatMessage>&)> process;
  std::function<TokenTextDecoder()> make_decoder;  // thread-safe
};

struct ServingContext {
  FrontendConfig config;
  ServedModel model;
  ChatProcessor processor;
  EngineHooks engine;
  MetricsRegistry& metrics;  // outlives the server
};

}  // namespace skipper
