#include "frontend/chat_completions.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "frontend/request_id.h"
#include "frontend/sse_writer.h"

namespace skipper {
namespace {

using std::chrono::steady_clock;

double seconds_between(steady_clock::time_point from, steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

int64_t unix_time() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

// Refuses before any work is done for the request; the queue itself decides again at submit.
void check_admission(const EngineStatus& status) {
  if (status.draining) throw Cancelled("the server is shutting down; send the request to another one");
  if (status.phase == EngineStatus::Phase::kLoading) throw Cancelled("the model is loading; try again when /ready answers 200");
  if (status.phase == EngineStatus::Phase::kFailed) throw Cancelled("the engine has failed; the server must be restarted");
  if (status.queue_full) throw ResourceExhausted("the queue is full; try again later");
}

// How many tokens may be generated: what was asked for, or all that the context has left.
int64_t max_new_tokens(const ChatRequest& chat, int64_t num_prompt_tokens, int64_t max_model_len) {
  const int64_t room = max_model_len - num_prompt_tokens;
  if (chat.max_tokens.value_or(1) <= room) return chat.max_tokens.value_or(room);
  const std::string wish = chat.max_tokens ? " and max_tokens asks for " + std::to_string(*chat.max_tokens) + " more"
                                           : ", which leaves no room for an answer";
  throw InvalidRequest("this model's context has " + std::to_string(max_model_len) + " tokens; the prompt has " +
                           std::to_string(num_prompt_tokens) + wish,
                       "messages", "context_length_exceeded");
}

GenerationRequest generation_request(const ChatRequest& chat, ProcessedPrompt prompt, const ServedModel& model) {
  GenerationRequest request;
  const int64_t num_new = max_new_tokens(chat, static_cast<int64_t>(prompt.token_ids.size()), model.max_model_len);
  request.max_new_tokens = static_cast<int32_t>(num_new);
  request.min_new_tokens = static_cast<int32_t>(std::min(chat.min_tokens, num_new));
  request.prompt_ids = std::move(prompt.token_ids);
  request.images = std::move(prompt.images);
  request.sampling = {.temperature = static_cast<float>(chat.temperature),
                      .top_p = static_cast<float>(chat.top_p),
                      .top_k = static_cast<int32_t>(chat.top_k),
                      .seed = chat.seed ? *chat.seed : random_bits()};
  request.stop_token_ids = chat.stop_token_ids;
  if (!chat.ignore_end_tokens) {
    request.stop_token_ids.insert(request.stop_token_ids.end(), model.end_token_ids.begin(), model.end_token_ids.end());
  }
  request.level = chat.level.level;
  request.level_choice = chat.level.choice;
  return request;
}

PolicyFloor floor_of(const ChatRequest& chat, const ServedModel& model) {
  const auto found = model.tier_policies.find(chat.service_tier);
  return found == model.tier_policies.end() ? PolicyFloor() : PolicyFloor{found->second, chat.service_tier};
}

HttpError failure(const TokenEvent& event) {
  if (event.finish_reason == FinishReason::kCancelled) {
    return http_error(503, "the request was cancelled because the server is shutting down");
  }
  return http_error(503, event.error.empty() ? "the engine failed while answering" : event.error);
}

}  // namespace

std::shared_ptr<ChatCompletion> ChatCompletion::start(const HttpRequest& request, std::shared_ptr<const ServingContext> context) {
  const EngineStatus status = context->engine.status();
  check_admission(status);
  const ChatRequest chat =
      parse_chat_request(request.body, context->model, context->config, status.highest_level, status.level_places);
  ProcessedPrompt prompt = context->processor.process(chat.messages);
  GenerationRequest generation = generation_request(chat, std::move(prompt), context->model);
  const PolicyFloor floor = floor_of(chat, context->model);

  std::shared_ptr<ChatCompletion> completion(new ChatCompletion(request, chat, std::move(context)));
  completion->submit(std::move(generation), floor);
  return completion;
}

ChatCompletion::ChatCompletion(const HttpRequest& request, const ChatRequest& chat, std::shared_ptr<const ServingContext> context)
    : context_(std::move(context)),
      identity_{.id = random_id("chatcmpl"), .created = unix_time(), .model = context_->model.name},
      mode_(chat.mode),
      include_usage_(chat.include_usage),
      chunks_(identity_, chat.include_usage ? UsageField::kNull : UsageField::kAbsent),
      arrival_(request.arrival) {
  for (int64_t i = 0; i < chat.num_choices; ++i) {
    choices_.emplace_back(ChoiceText(context_->processor.make_decoder(), chat.stop_strings));
  }
}

ChatCompletion::~ChatCompletion() { cancel(); }

// Each choice is a request of its own to the engine. When the queue takes only some, the destructor cancels those.
void ChatCompletion::submit(GenerationRequest request, const PolicyFloor& floor) {
  const size_t num_events = static_cast<size_t>(request.max_new_tokens) + 1;  // one more for an error
  outbox_ = std::make_shared<TokenOutbox>(num_events * choices_.size());
  num_prompt_tokens_ = static_cast<int64_t>(request.prompt_ids.size());
  for (size_t i = 0; i < choices_.size(); ++i) {
    const auto index = static_cast<int32_t>(i);
    request.sampling.choice = index;
    TokenSink sink = [outbox = outbox_, cancelled = choices_[i].cancelled, index](const TokenEvent& event) {
      return !cancelled->load() && outbox->push({.choice = index, .event = event});
    };
    context_->engine.submit(
        {.request = request, .sink = std::move(sink), .cancelled = choices_[i].cancelled, .floor = floor});
  }
  context_->metrics.record_prompt(num_prompt_tokens_);
}

ChatCompletion::Progress ChatCompletion::advance() {
  Progress progress;
  for (const ChoiceEvent& event : outbox_->take_all()) {
    apply(event, progress);
    if (progress.error) return progress;
  }
  progress.finished = num_finished_ == choices_.size();
  if (progress.finished && mode_ == ResponseMode::kStreamed) {
    if (include_usage_) progress.events += sse_event(chunks_.usage(usage()));
    progress.events += kSseDone;
  }
  return progress;
}

void ChatCompletion::apply(const ChoiceEvent& event, Progress& progress) {
  Choice& choice = choices_[static_cast<size_t>(event.choice)];
  choice.level = event.event.level;
  choice.skipping = event.event.usage;
  choice.versions = event.event.versions;
  if (choice.finished) return;  // the engine had a step under way when a stop string ended the choice
  const FinishReason reason = event.event.finish_reason;
  if (reason == FinishReason::kError || reason == FinishReason::kCancelled) {
    finish(choice, reason);
    progress.error = failure(event.event);
    return;
  }
  record_token(choice);
  ChoiceDelta delta = choice.text.add(event.event);
  if (mode_ == ResponseMode::kStreamed) append_events(event.choice, delta, progress);
  else choice.completed.text += delta.text;
  if (delta.finish_reason != FinishReason::kNone) finish(choice, delta.finish_reason);
}

void ChatCompletion::record_token(Choice& choice) {
  const auto now = steady_clock::now();
  if (choice.num_tokens == 0) context_->metrics.record_first_token(seconds_between(arrival_, now));
  else context_->metrics.record_token_interval(seconds_between(choice.last_token, now));
  context_->metrics.record_generated_tokens(1);
  choice.last_token = now;
  ++choice.num_tokens;
}

// One content chunk per token, empty ones too: clients measure the time between chunks. The role comes with the first token,
// not before, because they take the first chunk for it.
void ChatCompletion::append_events(int64_t index, const ChoiceDelta& delta, Progress& progress) {
  const bool first = choices_[static_cast<size_t>(index)].num_tokens == 1;
  const bool last = delta.finish_reason != FinishReason::kNone;
  if (first) progress.events += sse_event(chunks_.first_content(index, delta.text));
  else if (!last || !delta.text.empty()) progress.events += sse_event(chunks_.content(index, delta.text));
  if (last) progress.events += sse_event(chunks_.finish(index, delta.finish_reason));
}

void ChatCompletion::finish(Choice& choice, FinishReason reason) {
  choice.finished = true;
  choice.completed.finish_reason = reason;
  choice.cancelled->store(true);  // a no-op unless a stop string ended it
  ++num_finished_;
  context_->metrics.record_finished_request(finish_reason_name(reason), seconds_since_arrival());
}

void ChatCompletion::cancel() {
  if (!outbox_) return;
  outbox_->close();
  for (Choice& choice : choices_) {
    if (!choice.finished) finish(choice, FinishReason::kCancelled);
  }
}

double ChatCompletion::seconds_since_arrival() const { return seconds_between(arrival_, steady_clock::now()); }

TokenUsage ChatCompletion::usage() const {
  TokenUsage usage{.prompt_tokens = num_prompt_tokens_};
  for (const Choice& choice : choices_) {
    usage.completion_tokens += choice.num_tokens;
    usage.level = std::max(usage.level, choice.level);
    usage.skipping += choice.skipping;
  }
  if (usage.skipping.pairs_run > 0) usage.mean_bits = context_->engine.status().expert_bits_per_weight;
  if (context_->engine.policy_of) add_plans(usage);
  return usage;
}

// Experts that are switched change their bits; those of each version count by its tokens.
void ChatCompletion::add_plans(TokenUsage& usage) const {
  std::vector<VersionTokens> sums;
  for (const Choice& choice : choices_) {
    for (const VersionTokens& run : choice.versions) add_tokens(run, sums);
  }
  double bits = 0.0;
  int64_t num_tokens = 0;
  for (const VersionTokens& run : sums) {
    const PolicyTraits policy = context_->engine.policy_of(run.version);
    usage.plans.push_back({policy.name, run});
    if (policy.expert_bits <= 0.0) continue;  // not known
    bits += policy.expert_bits * static_cast<double>(run.num_tokens);
    num_tokens += run.num_tokens;
  }
  if (usage.mean_bits && num_tokens > 0) usage.mean_bits = bits / static_cast<double>(num_tokens);
}

HttpResponse ChatCompletion::response() const {
  std::vector<CompletedChoice> completed;
  for (const Choice& choice : choices_) completed.push_back(choice.completed);
  return {.body = completion_json(identity_, completed, usage())};
}

}  // namespace skipper
