// Rows that the experts of each layer take while samples run, and how much the router prefers the first expert to the second.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "cluster/operating_point.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"
#include "experts/activation_observer.h"
#include "tensor/tensor.h"

namespace skipper {

// Of a single rank, which sees all rows of every layer. Engine thread only.
class ExpertInputs {
 public:
  // Keeps at most `rows_per_layer` rows of each layer, drawn evenly from all that come.
  ExpertInputs(int num_moe_layers, int64_t rows_per_layer);

  // An ActivationObserver.
  void add(const ObservedRows& rows);
  void add_shares(int moe_layer, const TokenPolicies& policies, const Routing& routed);

  // [rows, H] f32; no rows at all where nothing came.
  Tensor rows(int moe_layer) const;
  // The median of p_2 / p_1 over the class's tokens, of each layer; empty for a class without tokens.
  std::vector<float> second_shares(TokenClass token_class) const;

 private:
  struct Layer {
    std::vector<std::vector<float>> rows;
    int64_t num_seen = 0;
    std::mt19937_64 random{0};  // alike in all layers, so that their rows are of the same tokens
  };

  int64_t rows_per_layer_;
  std::vector<Layer> layers_;
  std::array<std::vector<std::vector<float>>, kNumSkippableClasses> second_shares_;  // [class][layer]
};

}  // namespace skipper
