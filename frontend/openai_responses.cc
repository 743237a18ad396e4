#include "frontend/openai_responses.h"

#include <nlohmann/json.hpp>

namespace skipper {

using nlohmann::json;

namespace {

std::string dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

json skipper_object(const TokenUsage& usage) {
  json result = {{"level", usage.level},
                 {"pairs_run", usage.skipping.pairs_run},
                 {"pairs_skipped", usage.skipping.pairs_skipped},
                 {"pairs_shadow", usage.skipping.pairs_shadow},
                 {"bytes_sent", usage.skipping.bytes_sent},
                 {"bytes_saved", usage.skipping.bytes_saved},
                 {"mean_bits", usage.mean_bits ? json(*usage.mean_bits) : json()}};
  for (const PlanUsage& plan : usage.plans) {
    result["plans"].push_back({{"policy", plan.policy}, {"version", plan.run.version}, {"tokens", plan.run.num_tokens}});
  }
  return result;
}

json usage_object(const TokenUsage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"skipper", skipper_object(usage)}};
}

json envelope(const CompletionIdentity& identity, const char* object) {
  return {{"id", identity.id}, {"object", object}, {"created", identity.created}, {"model", identity.model}};
}

json chunk(const CompletionIdentity& identity, UsageField usage_field, json choices) {
  json result = envelope(identity, "chat.completion.chunk");
  result["choices"] = std::move(choices);
  if (usage_field == UsageField::kNull) result["usage"] = nullptr;
  return result;
}

json choice_delta(int64_t choice, json delta, json finish_reason) {
  return json::array({{{"index", choice},
                       {"delta", std::move(delta)},
                       {"logprobs", nullptr},
                       {"finish_reason", std::move(finish_reason)}}});
}

}  // namespace

std::string finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength: return "length";
    case FinishReason::kCancelled: return "abort";
    case FinishReason::kError: return "error";
    default: return "stop";
  }
}

std::string completion_json(const CompletionIdentity& identity, const std::vector<CompletedChoice>& choices,
                            const TokenUsage& usage) {
  json result = envelope(identity, "chat.completion");
  json list = json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    list.push_back({{"index", i},
                    {"message", {{"role", "assistant"}, {"content", choices[i].text}, {"refusal", nullptr}}},
                    {"logprobs", nullptr},
                    {"finish_reason", finish_reason_name(choices[i].finish_reason)}});
  }
  result["choices"] = std::move(list);
  result["usage"] = usage_object(usage);
  return dump(result);
}

CompletionChunks::CompletionChunks(CompletionIdentity identity, UsageField usage_field)
    : identity_(std::move(identity)), usage_field_(usage_field) {}

std::string CompletionChunks::first_content(int64_t choice, const std::string& text) const {
  return dump(chunk(identity_, usage_field_, choice_delta(choice, {{"role", "assistant"}, {"content", text}}, nullptr)));
}

std::string CompletionChunks::content(int64_t choice, const std::string& text) const {
  return dump(chunk(identity_, usage_field_, choice_delta(choice, {{"content", text}}, nullptr)));
}

std::string CompletionChunks::finish(int64_t choice, FinishReason reason) const {
  return dump(chunk(identity_, usage_field_, choice_delta(choice, json::object(), finish_reason_name(reason))));
}

std::string CompletionChunks::usage(const TokenUsage& usage) const {
  json result = chunk(identity_, usage_field_, json::array());
  result["usage"] = usage_object(usage);
  return dump(result);
}

std::string model_list_json(const ServedModel& model) {
  const json entry = {{"id", model.name},
                      {"object", "model"},
                      {"created", model.created},
                      {"owned_by", "skipper"},
                      {"max_model_len", model.max_model_len}};
  return dump({{"object", "list"}, {"data", json::array({entry})}});
}

}  // namespace skipper
