#include "frontend/openai_api.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "frontend/chat_messages_parser.h"
#include "frontend/json_document.h"
#include "frontend/request_fields.h"
#include "frontend/skipper_field.h"

namespace skipper {

using nlohmann::json;

namespace {

constexpr int64_t kMaxInt32 = INT32_MAX;

void check_model(const RequestFields& fields, const ServedModel& model) {
  const std::string name = fields.required_string("model");
  if (name == model.name) return;
  throw InvalidRequest("the model '" + (name.size() <= 100 ? name : name.substr(0, 100) + "...") +
                           "' does not exist; this server has '" + model.name + "'",
                       "model", "model_not_found");
}

// max_completion_tokens is the newer name and wins.
std::optional<int64_t> parse_max_tokens(const RequestFields& fields) {
  const auto older = fields.integer("max_tokens", {1, kMaxInt32});
  const auto newer = fields.integer("max_completion_tokens", {1, kMaxInt32});
  return newer ? newer : older;
}

std::string checked_stop_string(const RequestFields& fields, const json& value, const FrontendConfig& limits) {
  if (!value.is_string()) fields.fail("stop", "expected a string or a list of strings, found " + json_kind(value) + " in it");
  const auto& text = value.get_ref<const std::string&>();
  if (text.empty()) fields.fail("stop", "a stop string is empty");
  if (text.size() > limits.max_stop_bytes) {
    fields.fail("stop", "a stop string has " + std::to_string(text.size()) + " bytes, more than the limit of " +
                            std::to_string(limits.max_stop_bytes));
  }
  return text;
}

std::vector<std::string> parse_stop_strings(const RequestFields& fields, const FrontendConfig& limits) {
  const json& stop = fields.raw("stop");
  if (stop.is_null()) return {};
  if (!stop.is_array()) return {checked_stop_string(fields, stop, limits)};
  if (stop.size() > limits.max_stop_strings) {
    fields.fail("stop", std::to_string(stop.size()) + " stop strings, more than the limit of " +
                            std::to_string(limits.max_stop_strings));
  }
  std::vector<std::string> result;
  for (const json& value : stop) result.push_back(checked_stop_string(fields, value, limits));
  return result;
}

struct TokenIdLimits {
  size_t max_count;
  int64_t vocab_size;
};

std::vector<int32_t> parse_stop_token_ids(const RequestFields& fields, TokenIdLimits limits) {
  const json& ids = fields.raw("stop_token_ids");
  if (ids.is_null()) return {};
  if (!ids.is_array()) fields.fail("stop_token_ids", "expected a list of token ids, found " + json_kind(ids));
  if (ids.size() > limits.max_count) {
    fields.fail("stop_token_ids",
                std::to_string(ids.size()) + " ids, more than the limit of " + std::to_string(limits.max_count));
  }
  std::vector<int32_t> result;
  for (const json& id : ids) {
    const bool valid = id.is_number_integer() && id >= 0 && id < limits.vocab_size;
    if (!valid) fields.fail("stop_token_ids", "expected token ids from 0 to " + std::to_string(limits.vocab_size - 1));
    result.push_back(id.get<int32_t>());
  }
  return result;
}

// Any 64-bit integer is a seed, negative ones too.
std::optional<uint64_t> parse_seed(const RequestFields& fields) {
  const json& seed = fields.raw("seed");
  if (seed.is_number_unsigned()) return seed.get<uint64_t>();
  const auto value = fields.integer("seed", {INT64_MIN, INT64_MAX});
  return value ? std::optional(static_cast<uint64_t>(*value)) : std::nullopt;
}

void parse_sampling(const RequestFields& fields, const ServedModel& model, ChatRequest& request) {
  request.temperature = fields.number("temperature", {0.0, 2.0}).value_or(model.temperature);
  request.top_p = fields.number("top_p", {0.0, 1.0}).value_or(model.top_p);
  if (request.top_p == 0.0) fields.fail("top_p", "0 leaves no token; use a value above 0, up to 1");
  // -1 turns top-k off in other servers' clients, 0 here.
  request.top_k = std::max<int64_t>(0, fields.integer("top_k", {-1, kMaxInt32}).value_or(model.top_k));
  request.seed = parse_seed(fields);
}

void parse_stream_options(const RequestFields& fields, ChatRequest& request) {
  if (fields.boolean("stream").value_or(false)) request.mode = ResponseMode::kStreamed;
  if (!fields.has("stream_options")) return;
  if (request.mode != ResponseMode::kStreamed) fields.fail("stream_options", "is only allowed together with \"stream\": true");
  const RequestFields options(fields.raw("stream_options"), "stream_options");
  request.include_usage = options.boolean("include_usage").value_or(false);
}

// --- What is understood but not supported, and would change the answer. ---

// Numbers that only their neutral value leaves without effect.
void refuse_effects(const RequestFields& fields) {
  struct Neutral {
    const char* key;
    double value;
  };
  constexpr Neutral kNeutral[] = {{"presence_penalty", 0.0}, {"frequency_penalty", 0.0}, {"top_logprobs", 0.0},
                                  {"min_p", 0.0},            {"repetition_penalty", 1.0}, {"best_of", 1.0},
                                  {"length_penalty", 1.0}};
  for (const auto& [key, value] : kNeutral) {
    const auto given = fields.number(key, {-1e300, 1e300});
    if (given && *given != value) fields.fail(key, "is not supported yet; leave it out");
  }
}

// Flags that ask for something when they are true.
void refuse_flags(const RequestFields& fields) {
  for (const char* key : {"logprobs", "echo", "use_beam_search", "include_stop_str_in_output", "continue_final_message"}) {
    if (fields.boolean(key).value_or(false)) fields.fail(key, "is not supported yet; leave it out");
  }
  for (const char* key : {"skip_special_tokens", "add_generation_prompt"}) {
    if (!fields.boolean(key).value_or(true)) fields.fail(key, "false is not supported yet; leave it out");
  }
}

// Lists, objects and strings that ask for something unless they are empty.
void refuse_contents(const RequestFields& fields) {
  for (const char* key : {"tools", "functions", "logit_bias", "audio", "prediction", "web_search_options", "chat_template",
                          "chat_template_kwargs", "documents", "bad_words", "allowed_token_ids", "logits_processors",
                          "mm_processor_kwargs"}) {
    const json& value = fields.raw(key);
    const bool empty = value.is_string() ? value.get_ref<const std::string&>().empty() : value.empty();
    if (!empty) fields.fail(key, "is not supported yet; leave it out");
  }
  for (const char* key : {"structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
                          "truncate_prompt_tokens", "prompt_logprobs"}) {
    if (fields.has(key)) fields.fail(key, "is not supported yet; leave it out");
  }
}

void refuse_response_format(const RequestFields& fields) {
  if (!fields.has("response_format")) return;
  const RequestFields format(fields.raw("response_format"), "response_format");
  if (format.required_string("type") != "text") format.fail("type", "only \"text\" is supported yet");
}

void refuse_tool_choice(const RequestFields& fields) {
  const json& choice = fields.raw("tool_choice");
  if (!choice.is_null() && choice != "none" && choice != "auto") fields.fail("tool_choice", "tools are not supported yet");
}

void refuse_modalities(const RequestFields& fields) {
  const json& modalities = fields.raw("modalities");
  if (modalities.is_null()) return;
  if (modalities != json::array({"text"})) fields.fail("modalities", "only [\"text\"] is supported");
}

void refuse_unsupported(const RequestFields& fields) {
  refuse_effects(fields);
  refuse_flags(fields);
  refuse_contents(fields);
  refuse_response_format(fields);
  refuse_tool_choice(fields);
  refuse_modalities(fields);
}

}  // namespace

ChatRequest parse_chat_request(std::string_view body, const ServedModel& model, const FrontendConfig& limits,
                               int highest_level, std::span<const uint16_t> level_places) {
  const json document =
      parse_json_document(body, {.max_depth = limits.max_json_depth, .max_values = limits.max_json_values});
  const RequestFields fields(document, "");
  check_model(fields, model);
  refuse_unsupported(fields);

  ChatRequest request;
  request.max_tokens = parse_max_tokens(fields);
  request.min_tokens = fields.integer("min_tokens", {0, kMaxInt32}).value_or(0);
  if (request.max_tokens && request.min_tokens > *request.max_tokens) fields.fail("min_tokens", "is larger than max_tokens");
  parse_sampling(fields, model, request);
  request.num_choices = fields.integer("n", {1, static_cast<int64_t>(limits.max_choices)}).value_or(1);
  request.stop_strings = parse_stop_strings(fields, limits);
  request.stop_token_ids =
      parse_stop_token_ids(fields, {.max_count = limits.max_stop_token_ids, .vocab_size = model.vocab_size});
  request.ignore_end_tokens = fields.boolean("ignore_eos").value_or(false);
  request.level = parse_requested_level(
      fields, {.highest_level = highest_level, .service_tiers = model.service_tiers, .places = level_places});
  request.service_tier = fields.string("service_tier").value_or("auto");
  parse_stream_options(fields, request);
  request.messages = parse_chat_messages(fields.raw("messages"), limits);
  return request;
}

}  // namespace skipper
