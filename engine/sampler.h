// What the next token of a request is sampled by, and what scoring reads of logits. Runs at the owner rank.
#pragma once

#include <cstdint>
#include <span>

#include "engine/generation_request.h"
#include "kernels/token_sampling.h"

namespace skipper {

// How the token after `num_generated` tokens of the answer is sampled. It refers to the request's stop tokens, which are
// forbidden until the minimum length.
TokenSampling next_token_sampling(const GenerationRequest& request, int32_t num_generated);

// 64 bits that depend on nothing but their arguments: the same request gives the same text in any batch, on any rank, and when
// it is replayed.
uint64_t random_bits(uint64_t seed, int32_t choice, int32_t position);

// log Σ exp(logits), in double precision.
double log_sum_exp(std::span<const float> logits);

// −log softmax(logits)[token], in nats, in double precision.
double negative_log_likelihood(std::span<const float> logits, int32_t token);

}  // namespace skipper
