// The JSON that OpenAI's clients read: whole completions, stream chunks, the model list.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/generation_request.h"
#include "frontend/openai_api.h"

namespace skipper {

// What all chunks of one response, or the whole one, have in common.
struct CompletionIdentity {
  std::string id;  // "chatcmpl-..."
  int64_t created = 0;
  std::string model;
};

// Tokens that ran on one version of the experts.
struct PlanUsage {
  std::string policy;
  VersionTokens run;
};

// Of all choices together.
struct TokenUsage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;  // all generated ones: end tokens and those cut off by a stop string too
  uint8_t level = 0;              // of the newest token, the highest of the choices'
  SkipUsage skipping = {};
  std::optional<double> mean_bits = {};  // per weight of the experts that ran; nothing when none did
  std::vector<PlanUsage> plans = {};     // empty where no experts are switched
};

struct CompletedChoice {
  std::string text;
  FinishReason finish_reason = FinishReason::kStop;
};

// "stop" or "length"; the name metrics use for the others.
std::string finish_reason_name(FinishReason reason);

std::string completion_json(const CompletionIdentity& identity, const std::vector<CompletedChoice>& choices,
                            const TokenUsage& usage);

enum class UsageField : uint8_t { kAbsent, kNull };

// Writes the chunks of one streamed response. With kNull every chunk but the last says "usage": null.
class CompletionChunks {
 public:
  CompletionChunks(CompletionIdentity identity, UsageField usage_field);

  std::string first_content(int64_t choice, const std::string& text) const;  // with the role
  std::string content(int64_t choice, const std::string& text) const;
  std::string finish(int64_t choice, FinishReason reason) const;
  std::string usage(const TokenUsage& usage) const;  // choices is empty here, and only here

 private:
  CompletionIdentity identity_;
  UsageField usage_field_;
};

std::string model_list_json(const ServedModel& model);

}  // namespace skipper
