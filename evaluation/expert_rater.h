// Asks experts for answers and compares them: how much each has to say, and who says the same.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "experts/expert_ffn.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

// What a layer gives its experts, besides rows.
struct RatedLayer {
  int moe_layer = 0;
  Tensor norm;    // [H] f32, weights of the norm before router and experts
  Tensor router;  // [E, H] f32
};

// Of one layer.
struct LayerRatings {
  std::vector<float> capacity;    // [E]
  std::vector<float> response;    // [E]
  std::vector<float> similarity;  // [E · E], symmetric
};

// A rank that owns all experts. Everything is computed by the kernels that serve, in the format in which the experts rest.
class ExpertRater {
 public:
  // `store` is frozen and outlives this object.
  ExpertRater(const ExpertStore& store, Stream& stream);

  // Views of one layer; answers are compared over `rows` [N, H] f32, N > 1:
  //   capacity    mean |E_e(norm ⊙ z)| over normal random z, by the layer's mean
  //   response    |E_e(norm ⊙ u_e)|, where u_e is the row of unit mean square along norm ⊙ (router_e − mean router): what the
  //               router prefers e for (the refinement along centred router directions of ACE); by the layer's mean
  //   similarity  linear CKA of E_e(rows) and E_f(rows) (Kornblith et al. 2019), by the mean over e ≠ f
  LayerRatings rate(const RatedLayer& layer, const Tensor& rows) const;

 private:
  Tensor answers(int moe_layer, int64_t slot, const Tensor& rows) const;
  std::vector<float> capacities(const RatedLayer& layer) const;
  std::vector<float> responses(const RatedLayer& layer) const;
  std::vector<float> similarities(int moe_layer, const Tensor& rows) const;

  const ExpertStore& store_;
  ExpertFfn experts_;
  mutable ExpertScratch scratch_;
  Stream& stream_;
};

}  // namespace skipper
