// What experts meet while a model runs: how often each is used, and some of the rows that reach it with their routing weights.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "cluster/token_class.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"
#include "experts/activation_observer.h"

namespace skipper {

struct ExpertSampleShape {
  int num_moe_layers = 0;
  int num_experts = 0;
  int rows_per_expert = 0;  // kept; each row that arrives has the same chance
};

// Of one expert.
struct SampledRows {
  std::vector<float> rows;   // [n, H]
  std::vector<float> gates;  // [n]
  int64_t num_met = 0;

  int64_t count() const { return static_cast<int64_t>(gates.size()); }
};

// Observes a model on one rank, where all experts are: the routing of a layer, then the inputs of its experts. Engine thread
// only.
class ExpertSamples {
 public:
  explicit ExpertSamples(const ExpertSampleShape& shape);

  // `kept` is what skipping left.
  void see_routing(int moe_layer, const TokenPolicies& policies, const Routing& kept);
  void see_inputs(const ObservedRows& observed);

  const ExpertSampleShape& shape() const { return shape_; }
  const SampledRows& at(int moe_layer, int expert) const { return experts_[index_of(moe_layer, expert)]; }
  // Tokens that passed the first MoE layer; later layers may see fewer, where only read rows go on.
  int64_t num_tokens(TokenClass token_class, TokenPhase phase) const;
  int64_t num_tokens() const;
  // Pairs that ran.
  int64_t num_pairs(int moe_layer, int expert, TokenClass token_class, TokenPhase phase) const;

 private:
  using Counts = std::array<std::array<int64_t, kNumTokenPhases>, kNumTokenClasses>;

  size_t index_of(int moe_layer, int expert) const {
    return static_cast<size_t>(moe_layer) * static_cast<size_t>(shape_.num_experts) + static_cast<size_t>(expert);
  }
  float gate_of(int64_t row, int32_t expert) const;
  void offer(SampledRows& sample, const float* row, int64_t width, float gate);

  ExpertSampleShape shape_;
  std::vector<SampledRows> experts_;
  std::vector<Counts> pairs_;  // by expert
  Counts tokens_{};
  // Of the layer that runs: rows that were sent, in order, are the tokens with an expert.
  std::vector<int32_t> sent_ids_;    // [rows, top_k]
  std::vector<float> sent_weights_;  // [rows, top_k]
  int64_t top_k_ = 0;
  std::mt19937_64 random_{1};
};

}  // namespace skipper
