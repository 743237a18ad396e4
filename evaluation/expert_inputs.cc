#include "evaluation/expert_inputs.h"

#include <algorithm>
#include <optional>

#include "evaluation/reservoir.h"

namespace skipper {
namespace {

std::vector<float> row_of(const Tensor& rows, int64_t row) {
  std::vector<float> values(static_cast<size_t>(rows.row_elements()));
  if (rows.dtype() == DType::kBF16) {
    std::transform(rows.row<bf16>(row), rows.row<bf16>(row) + values.size(), values.begin(),
                   [](bf16 value) { return static_cast<float>(value); });
  } else {
    std::copy_n(rows.row<float>(row), values.size(), values.begin());
  }
  return values;
}

float median(std::vector<float> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

ExpertInputs::ExpertInputs(int num_moe_layers, int64_t rows_per_layer)
    : rows_per_layer_(rows_per_layer), layers_(static_cast<size_t>(num_moe_layers)) {
  for (auto& of_class : second_shares_) of_class.resize(layers_.size());
}

void ExpertInputs::add(const ObservedRows& rows) {
  if (rows.input != MatrixInput::kGateUp || rows.slots.empty()) return;
  Layer& layer = layers_[static_cast<size_t>(rows.layer)];
  for (int64_t row = 0; row < rows.rows.dim(0); ++row) {
    const std::optional<int64_t> place = reservoir_place(layer.num_seen, rows_per_layer_, layer.random);
    if (!place) continue;
    layer.rows.resize(std::max(layer.rows.size(), static_cast<size_t>(*place) + 1));
    layer.rows[static_cast<size_t>(*place)] = row_of(rows.rows, row);
  }
}

void ExpertInputs::add_shares(int moe_layer, const TokenPolicies& policies, const Routing& routed) {
  if (routed.expert_weights.dim(1) < 2) return;
  for (int64_t token = 0; token < policies.num_tokens(); ++token) {
    const size_t token_class = policies.token_class.data<uint8_t>()[token];
    const float* weights = routed.expert_weights.row<float>(token);
    if (token_class >= kNumSkippableClasses || !(weights[0] > 0.0f)) continue;
    second_shares_[token_class][static_cast<size_t>(moe_layer)].push_back(weights[1] / weights[0]);
  }
}

Tensor ExpertInputs::rows(int moe_layer) const {
  const auto& kept = layers_[static_cast<size_t>(moe_layer)].rows;
  if (kept.empty()) return Tensor::empty({0, 0}, DType::kF32);
  Tensor rows = Tensor::empty({static_cast<int64_t>(kept.size()), static_cast<int64_t>(kept[0].size())}, DType::kF32);
  for (size_t row = 0; row < kept.size(); ++row) std::ranges::copy(kept[row], rows.row<float>(static_cast<int64_t>(row)));
  return rows;
}

std::vector<float> ExpertInputs::second_shares(TokenClass token_class) const {
  std::vector<float> medians;
  for (const std::vector<float>& shares : second_shares_[static_cast<size_t>(token_class)]) {
    if (shares.empty()) return {};
    medians.push_back(median(shares));
  }
  return medians;
}

}  // namespace skipper
