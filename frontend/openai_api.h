// POST /v1/chat/completions: from the JSON body to a typed struct in which every value is in range.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/frontend_config.h"
#include "frontend/skipper_field.h"
#include "processor/chat_message.h"

namespace skipper {

// The model this server serves, and what a request gets that does not ask for anything.
struct ServedModel {
  std::string name;
  int64_t max_model_len = 0;  // prompt and generated tokens together
  int64_t vocab_size = 0;
  int64_t created = 0;        // Unix time of the server's start
  double temperature = 1.0;   // 0 when the checkpoint's generation_config says do_sample false
  double top_p = 1.0;
  int64_t top_k = 0;
  std::vector<int32_t> end_token_ids;  // of generation_config: ends an answer unless ignore_eos
  std::map<std::string, int64_t> service_tiers = {};  // tier → highest level; a tier that is not here has no ceiling
  std::map<std::string, uint16_t> tier_policies = {};  // tier → PolicyFloor::lowest; a tier that is not here has none
};

enum class ResponseMode : uint8_t { kWhole, kStreamed };

struct ChatRequest {
  std::vector<ChatMessage> messages;
  std::optional<int64_t> max_tokens;  // nothing: as many as the context takes
  int64_t min_tokens = 0;
  double temperature = 1.0;
  double top_p = 1.0;
  int64_t top_k = 0;
  std::optional<uint64_t> seed;
  int64_t num_choices = 1;
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_token_ids;  // without the model's own end tokens
  bool ignore_end_tokens = false;
  ResponseMode mode = ResponseMode::kWhole;
  RequestedLevel level;
  std::string service_tier = "auto";
  bool include_usage = false;  // streamed: one more chunk with the token counts
};

// Null stands for an absent field, unknown fields are ignored; a known field that would change the answer but is not supported is
// refused by name. `highest_level` and `level_places` (LevelLimits::places) are those of the levels now. Throws InvalidRequest
// with the field's path as param, code model_not_found for another model's name.
ChatRequest parse_chat_request(std::string_view body, const ServedModel& model, const FrontendConfig& limits,
                               int highest_level, std::span<const uint16_t> level_places = {});

}  // namespace skipper
