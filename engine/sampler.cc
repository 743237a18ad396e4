#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace skipper {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

void forbid_stop_tokens_until_min_length(std::span<float> logits, const SamplingContext& context) {
  if (context.num_generated >= context.request.min_new_tokens) return;
  for (const int32_t id : context.request.stop_token_ids) {
    if (id >= 0 && static_cast<size_t>(id) < logits.size()) logits[static_cast<size_t>(id)] = kForbidden;
  }
}

void apply_temperature(std::span<float> logits, const SamplingContext& context) {
  // Relative to the largest: however small the temperature, nothing overflows and the largest keeps its place.
  const float largest = *std::max_element(logits.begin(), logits.end());
  for (float& logit : logits) logit = logit == largest ? 0.0f : (logit - largest) / context.request.sampling.temperature;
}

// Ids by falling logit, lower id first among equals: the one order that top-k, top-p and the draw share.
std::vector<int32_t> ids_by_logit(std::span<const float> logits) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  return ids;
}

void keep_top_k(std::span<float> logits, const SamplingContext& context) {
  const auto k = static_cast<size_t>(context.request.sampling.top_k);
  if (k >= logits.size()) return;
  const std::vector<int32_t> ids = ids_by_logit(logits);
  for (size_t i = k; i < ids.size(); ++i) logits[static_cast<size_t>(ids[i])] = kForbidden;
}

double largest_of(std::span<const float> logits) { return *std::max_element(logits.begin(), logits.end()); }

double sum_of_exponentials(std::span<const float> logits, double largest) {
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return sum;
}

// Keeps the smallest set of most likely tokens whose probabilities reach top_p; at least one.
void keep_top_p(std::span<float> logits, const SamplingContext& context) {
  const double largest = largest_of(logits);
  const double total = sum_of_exponentials(logits, largest);
  const std::vector<int32_t> ids = ids_by_logit(logits);
  double mass = 0.0;
  for (const int32_t id : ids) {
    float& logit = logits[static_cast<size_t>(id)];
    const double probability = std::exp(static_cast<double>(logit) - largest) / total;
    if (mass >= static_cast<double>(context.request.sampling.top_p)) logit = kForbidden;
    mass += probability;
  }
}

int32_t largest_logit(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

int32_t draw(std::span<const float> logits, double uniform) {
  const double largest = largest_of(logits);
  double left = uniform * sum_of_exponentials(logits, largest);
  int32_t last_possible = largest_logit(logits);
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] == kForbidden) continue;
    last_possible = static_cast<int32_t>(id);
    left -= std::exp(static_cast<double>(logits[id]) - largest);
    if (left < 0.0) break;
  }
  return last_possible;
}

// The finaliser of SplitMix64 (Steele et al. 2014): every input bit reaches every output bit.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

std::vector<LogitProcessor> build_logit_processors(const GenerationRequest& request) {
  std::vector<LogitProcessor> processors;
  if (request.min_new_tokens > 0) processors.emplace_back(forbid_stop_tokens_until_min_length);
  if (request.sampling.temperature <= 0.0f) return processors;
  if (request.sampling.temperature != 1.0f) processors.emplace_back(apply_temperature);
  if (request.sampling.top_k > 0) processors.emplace_back(keep_top_k);
  if (request.sampling.top_p < 1.0f) processors.emplace_back(keep_top_p);
  return processors;
}

double uniform_random(uint64_t seed, int32_t choice, int32_t position) {
  const uint64_t place = (static_cast<uint64_t>(static_cast<uint32_t>(choice)) << 32) | static_cast<uint32_t>(position);
  return static_cast<double>(mix(mix(seed) ^ place) >> 11) * 0x1.0p-53;
}

int32_t sample_token(std::span<float> logits, std::span<const LogitProcessor> processors, const SamplingContext& context) {
  for (float& logit : logits) {
    if (std::isnan(logit)) logit = kForbidden;
  }
  const int32_t fallback = largest_logit(logits);
  for (const LogitProcessor& process : processors) process(logits, context);
  const int32_t best = largest_logit(logits);
  if (logits[static_cast<size_t>(best)] == kForbidden) return fallback;
  const SamplingParams& sampling = context.request.sampling;
  if (sampling.temperature <= 0.0f) return best;
  return draw(logits, uniform_random(sampling.seed, sampling.choice, context.num_generated));
}

double log_sum_exp(std::span<const float> logits) {
  const double largest = largest_of(logits);
  return std::log(sum_of_exponentials(logits, largest)) + largest;
}

double negative_log_likelihood(std::span<const float> logits, int32_t token) {
  return log_sum_exp(logits) - static_cast<double>(logits[static_cast<size_t>(token)]);
}

}  // namespace skipper
