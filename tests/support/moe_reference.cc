#include "tests/support/moe_reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace skipper {

namespace {

Tensor random_tensor(const Shape& shape, float scale, std::mt19937& generator) {
  Tensor tensor = Tensor::empty(shape, DType::kBF16);
  std::normal_distribution<float> normal(0.0f, scale);
  for (bf16& value : tensor.span<bf16>()) value = bf16(normal(generator));
  return tensor;
}

// weight [N, K] · x [K]
std::vector<double> multiply(const bf16* weight, size_t num_rows, std::span<const double> x) {
  std::vector<double> y(num_rows, 0.0);
  for (size_t n = 0; n < num_rows; ++n) {
    for (size_t i = 0; i < x.size(); ++i) y[n] += double{static_cast<float>(weight[n * x.size() + i])} * x[i];
  }
  return y;
}

std::vector<double> softmax(const std::vector<double>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> probabilities;
  for (const double logit : logits) probabilities.push_back(std::exp(logit - largest));
  const double sum = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
  for (double& probability : probabilities) probability /= sum;
  return probabilities;
}

}  // namespace

MoeWeights random_moe_weights(const MoeShape& shape, uint32_t seed) {
  std::mt19937 generator(seed);
  const float hidden_scale = 1.0f / std::sqrt(static_cast<float>(shape.hidden_size));
  const float intermediate_scale = 1.0f / std::sqrt(static_cast<float>(shape.intermediate_size));
  MoeWeights weights;
  weights.shape = shape;
  weights.router = random_tensor({shape.num_experts, shape.hidden_size}, hidden_scale, generator);
  weights.gate_up = random_tensor({shape.num_experts, 2 * shape.intermediate_size, shape.hidden_size}, hidden_scale,
                                  generator);
  weights.down = random_tensor({shape.num_experts, shape.hidden_size, shape.intermediate_size}, intermediate_scale,
                               generator);
  return weights;
}

std::vector<ReferencePair> reference_routing(const MoeWeights& weights, std::span<const float> x) {
  const std::vector<double> input(x.begin(), x.end());
  const std::vector<double> scores =
      softmax(multiply(weights.router.data<bf16>(), static_cast<size_t>(weights.shape.num_experts), input));
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(weights.shape.top_k));
  double sum = 0.0;
  for (const int32_t expert : order) sum += scores[static_cast<size_t>(expert)];
  std::vector<ReferencePair> pairs;
  for (const int32_t expert : order) pairs.push_back({expert, scores[static_cast<size_t>(expert)] / sum});
  return pairs;
}

std::vector<double> reference_expert(const MoeWeights& weights, int32_t expert, std::span<const float> x) {
  const std::vector<double> input(x.begin(), x.end());
  const auto width = static_cast<size_t>(weights.shape.intermediate_size);
  const std::vector<double> gate_up = multiply(weights.gate_up.row<bf16>(expert), 2 * width, input);
  std::vector<double> activated(width);
  for (size_t i = 0; i < width; ++i) activated[i] = gate_up[i] / (1.0 + std::exp(-gate_up[i])) * gate_up[width + i];
  return multiply(weights.down.row<bf16>(expert), x.size(), activated);
}

std::vector<double> reference_moe(const MoeWeights& weights, std::span<const ReferencePair> pairs,
                                  std::span<const float> x) {
  std::vector<double> sum(x.size(), 0.0);
  for (const ReferencePair& pair : pairs) {
    const std::vector<double> y = reference_expert(weights, pair.expert, x);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += pair.weight * y[i];
  }
  return sum;
}

std::vector<int32_t> reference_skip(std::span<const int32_t> ids, std::span<const float> weights,
                                    const ReferenceRule& rule) {
  std::vector<int32_t> kept(ids.begin(), ids.end());
  if (rule.is_protected) return kept;
  const float sum = std::accumulate(weights.begin(), weights.end(), 0.0f);
  const auto top1 = std::max_element(weights.begin(), weights.end()) - weights.begin();
  for (size_t j = 0; j < kept.size(); ++j) {
    const float p = weights[j] / (sum + 1e-20f);
    const float s = rule.alpha * p;
    const bool spared = rule.protect_top1 && static_cast<std::ptrdiff_t>(j) == top1;
    if (s < rule.tau && !spared) kept[j] = -1;
  }
  return kept;
}

}  // namespace skipper
