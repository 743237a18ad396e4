// From the logits of one token to the next token id: a chain of logit processors, then one draw. Runs at the owner rank.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/generation_request.h"

namespace skipper {

// What a logit processor may look at.
struct SamplingContext {
  const GenerationRequest& request;
  int32_t num_generated = 0;  // tokens of the answer so far, without the one being sampled
};

// Changes logits in place; −infinity forbids a token.
using LogitProcessor = std::function<void(std::span<float> logits, const SamplingContext& context)>;

// The processors that a request's parameters ask for, in this order: minimum length, temperature, top-k, top-p
// (Holtzman et al. 2020). Greedy requests get no temperature, top-k or top-p: their largest logit is not affected.
std::vector<LogitProcessor> build_logit_processors(const GenerationRequest& request);

// A number in [0, 1) that depends on nothing but its arguments: the same request gives the same text in any batch, on any
// rank, and when it is replayed.
double uniform_random(uint64_t seed, int32_t choice, int32_t position);

// Applies the chain to `logits` (overwritten) and draws. Greedy: largest logit, lowest id on ties. NaN counts as −infinity.
// Throws nothing; if every token is forbidden the largest original logit wins.
int32_t sample_token(std::span<float> logits, std::span<const LogitProcessor> processors, const SamplingContext& context);

// log Σ exp(logits), in double precision.
double log_sum_exp(std::span<const float> logits);

// −log softmax(logits)[token], in nats, in double precision.
double negative_log_likelihood(std::span<const float> logits, int32_t token);

}  // namespace skipper
