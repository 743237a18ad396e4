#include "tests/expert_parallel/frozen_routing.h"

#include <cmath>
#include <numeric>
#include <random>

#include "expert_parallel/expert_skipping.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {

namespace {

void fill_token(Frozen& frozen, int64_t token, std::mt19937& generator) {
  std::vector<int32_t> experts(kNumExperts);
  std::iota(experts.begin(), experts.end(), 0);
  std::shuffle(experts.begin(), experts.end(), generator);
  std::copy_n(experts.begin(), kTopK, frozen.routing.expert_ids.row<int32_t>(token));
  float* weights = frozen.routing.expert_weights.row<float>(token);
  float sum = 0.0f;
  for (size_t j = 0; j < kTopK; ++j) sum += weights[j] = std::exp(std::normal_distribution<float>()(generator));
  for (size_t j = 0; j < kTopK; ++j) weights[j] /= sum;
  std::sort(weights, weights + kTopK, std::greater<>());
}

Routing empty_routing(int64_t num_tokens) {
  return {.expert_ids = Tensor::empty({num_tokens, int64_t{kTopK}}, DType::kI32),
          .expert_weights = Tensor::empty({num_tokens, int64_t{kTopK}}, DType::kF32)};
}

void copy_row(const Routing& from, size_t from_row, Routing& to, size_t to_row) {
  const auto f = static_cast<int64_t>(from_row), t = static_cast<int64_t>(to_row);
  std::copy_n(from.expert_ids.row<int32_t>(f), kTopK, to.expert_ids.row<int32_t>(t));
  std::copy_n(from.expert_weights.row<float>(f), kTopK, to.expert_weights.row<float>(t));
}

// The tokens of one rank.
std::vector<size_t> tokens_of(int rank, size_t num_ranks, size_t num_tokens) {
  std::vector<size_t> tokens;
  for (auto t = static_cast<size_t>(rank); t < num_tokens; t += num_ranks) tokens.push_back(t);
  return tokens;
}

Skipped skip_on_rank(const Frozen& frozen, const SkippingContext& context) {
  Skipped result;
  SkippingBuffers buffers(static_cast<int64_t>(frozen.num_tokens()) + 2, kTopK);
  Stream stream;
  result.kept = ExpertSkipping(context, {.layer = kLayer, .moe_layer = kLayer})
                    .apply(frozen.routing, frozen.policies, buffers, result.counters, stream);
  return result;
}

}  // namespace

void Frozen::set_class(TokenClass token_class) {
  std::ranges::fill(policies.token_class.span<uint8_t>(), static_cast<uint8_t>(token_class));
}

void Frozen::set_phase(TokenPhase phase) {
  std::ranges::fill(policies.phase.span<uint8_t>(), static_cast<uint8_t>(phase));
}

Frozen Frozen::subset(const std::vector<size_t>& tokens) const {
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  Frozen part{.routing = empty_routing(num_tokens), .policies = TokenPolicies::defaults(num_tokens)};
  for (size_t i = 0; i < tokens.size(); ++i) {
    copy_row(routing, tokens[i], part.routing, i);
    part.policies.token_class.data<uint8_t>()[i] = policies.token_class.data<uint8_t>()[tokens[i]];
    part.policies.level.data<uint8_t>()[i] = policies.level.data<uint8_t>()[tokens[i]];
    part.policies.phase.data<uint8_t>()[i] = policies.phase.data<uint8_t>()[tokens[i]];
  }
  return part;
}

Frozen random_routing(int64_t num_tokens, uint32_t num_levels, uint32_t seed) {
  std::mt19937 generator(seed);
  Frozen frozen{.routing = empty_routing(num_tokens), .policies = TokenPolicies::defaults(num_tokens)};
  for (int64_t t = 0; t < num_tokens; ++t) {
    fill_token(frozen, t, generator);
    frozen.policies.token_class.data<uint8_t>()[t] = static_cast<uint8_t>(generator() % kNumTokenClasses);
    frozen.policies.level.data<uint8_t>()[t] = static_cast<uint8_t>(generator() % num_levels);
  }
  return frozen;
}

Frozen text_routing(int64_t num_tokens, uint32_t seed) {
  Frozen frozen = random_routing(num_tokens, 1, seed);
  frozen.set_class(TokenClass::kText);
  return frozen;
}

Routing routing_of(const std::vector<int32_t>& ids, int64_t top_k) {
  const auto num_tokens = static_cast<int64_t>(ids.size()) / top_k;
  Routing routing{.expert_ids = Tensor::empty({num_tokens, top_k}, DType::kI32),
                  .expert_weights = Tensor::zeros({num_tokens, top_k}, DType::kF32)};
  std::copy(ids.begin(), ids.end(), routing.expert_ids.data<int32_t>());
  return routing;
}

OperatingPoint point(std::array<float, 2> alpha, std::array<float, 2> tau) {
  OperatingPoint result;
  for (size_t c = 0; c < 2; ++c) {
    result.alpha[c].assign(kNumLayers, (1.0f - alpha[c]) / (kNumLayers - 1));
    result.alpha[c][kLayer] = alpha[c];
  }
  result.tau = tau;
  return result;
}

OperatingPoint point_with(const std::function<void(OperatingPoint&)>& change) {
  OperatingPoint result = point({0.5f, 0.5f}, {0.0f, 0.0f});
  change(result);
  return result;
}

LevelTable table(std::vector<OperatingPoint> points) {
  LevelTable levels;
  levels.levels = std::move(points);
  return levels;
}

Skipped skip(const Frozen& frozen, const LevelTable& levels, const std::vector<int>& node_of_rank) {
  const size_t num_ranks = node_of_rank.size();
  const auto placement = ExpertPlacement::contiguous(
      {.num_moe_layers = kNumLayers, .num_experts = kNumExperts, .world_size = static_cast<int>(num_ranks)});
  const ClusterTopology topology(node_of_rank);
  std::vector<Skipped> of_rank(num_ranks);
  spawn_ranks(static_cast<int>(num_ranks), [&](Communicator& data) {
    const auto rank = static_cast<size_t>(data.rank());
    const Frozen part = num_ranks == 1 ? frozen : frozen.subset(tokens_of(data.rank(), num_ranks, frozen.num_tokens()));
    of_rank[rank] = skip_on_rank(part, {levels, placement, topology, data});
  });
  if (num_ranks == 1) return of_rank[0];
  Skipped all{.kept = empty_routing(static_cast<int64_t>(frozen.num_tokens())), .counters = {}};
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    all.counters += of_rank[rank].counters;
    const std::vector<size_t> tokens = tokens_of(static_cast<int>(rank), num_ranks, frozen.num_tokens());
    for (size_t i = 0; i < tokens.size(); ++i) copy_row(of_rank[rank].kept, i, all.kept, tokens[i]);
  }
  return all;
}

int rank_of_expert(int32_t expert, size_t num_ranks) {
  size_t rank = 0;
  while ((rank + 1) * kNumExperts / num_ranks <= static_cast<size_t>(expert)) ++rank;
  return static_cast<int>(rank);
}

int64_t total(const std::array<int64_t, kNumTokenClasses>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

}  // namespace skipper
