#include "evaluation/expert_samples.h"

#include <glog/logging.h>

#include <algorithm>
#include <optional>

#include "evaluation/reservoir.h"
#include "tensor/tensor.h"

namespace skipper {
namespace {

const float* as_floats(const Tensor& rows, int64_t row, std::vector<float>& converted) {
  if (rows.dtype() == DType::kF32) return rows.row<float>(row);
  CHECK(rows.dtype() == DType::kBF16) << name_of(rows.dtype());
  const bf16* source = rows.row<bf16>(row);
  for (size_t i = 0; i < converted.size(); ++i) converted[i] = static_cast<float>(source[i]);
  return converted.data();
}

}  // namespace

ExpertSamples::ExpertSamples(const ExpertSampleShape& shape)
    : shape_(shape),
      experts_(static_cast<size_t>(shape.num_moe_layers) * static_cast<size_t>(shape.num_experts)),
      pairs_(experts_.size(), Counts{}) {
  CHECK_GT(shape.rows_per_expert, 0);
}

void ExpertSamples::see_routing(int moe_layer, const TokenPolicies& policies, const Routing& kept) {
  top_k_ = kept.expert_ids.dim(1);
  sent_ids_.clear();
  sent_weights_.clear();
  for (int64_t token = 0; token < kept.expert_ids.dim(0); ++token) {
    const int32_t* ids = kept.expert_ids.row<int32_t>(token);
    const auto token_class = static_cast<size_t>(policies.token_class.data<uint8_t>()[token]);
    const auto phase = static_cast<size_t>(policies.phase.data<uint8_t>()[token]);
    if (moe_layer == 0) ++tokens_[token_class][phase];
    bool is_sent = false;
    for (int64_t j = 0; j < top_k_; ++j) {
      if (ids[j] == kNoExpert) continue;
      is_sent = true;
      ++pairs_[index_of(moe_layer, ids[j])][token_class][phase];
    }
    if (!is_sent) continue;
    sent_ids_.insert(sent_ids_.end(), ids, ids + top_k_);
    const float* weights = kept.expert_weights.row<float>(token);
    sent_weights_.insert(sent_weights_.end(), weights, weights + top_k_);
  }
}

void ExpertSamples::see_inputs(const ObservedRows& observed) {
  if (observed.input != MatrixInput::kGateUp || observed.row_offsets == nullptr) return;
  const int32_t* offsets = observed.row_offsets->data<int32_t>();
  const int32_t* row_index = observed.row_index->data<int32_t>();
  std::vector<float> converted(static_cast<size_t>(observed.rows.dim(1)));
  for (size_t slot = 0; slot < observed.slots.size(); ++slot) {
    const int32_t expert = observed.slots[slot].expert;
    for (int32_t r = offsets[slot]; r < offsets[slot + 1]; ++r) {
      const float gate = gate_of(row_index[r], expert);
      offer(experts_[index_of(observed.layer, expert)], as_floats(observed.rows, row_index[r], converted),
            observed.rows.dim(1), gate);
    }
  }
}

float ExpertSamples::gate_of(int64_t row, int32_t expert) const {
  const auto begin = sent_ids_.begin() + row * top_k_;
  const auto found = std::find(begin, begin + top_k_, expert);
  CHECK(found != begin + top_k_) << "a row was not routed to expert " << expert << ": experts of several ranks cannot be sampled";
  return sent_weights_[static_cast<size_t>(found - sent_ids_.begin())];
}

void ExpertSamples::offer(SampledRows& sample, const float* row, int64_t width, float gate) {
  const std::optional<int64_t> place = reservoir_place(sample.num_met, shape_.rows_per_expert, random_);
  if (!place) return;
  if (*place == sample.count()) {
    sample.rows.resize(sample.rows.size() + static_cast<size_t>(width));
    sample.gates.push_back(gate);
  }
  std::copy(row, row + width, sample.rows.begin() + *place * width);
  sample.gates[static_cast<size_t>(*place)] = gate;
}

int64_t ExpertSamples::num_tokens(TokenClass token_class, TokenPhase phase) const {
  return tokens_[static_cast<size_t>(token_class)][static_cast<size_t>(phase)];
}

int64_t ExpertSamples::num_tokens() const {
  int64_t sum = 0;
  for (const auto& phases : tokens_) {
    for (const int64_t count : phases) sum += count;
  }
  return sum;
}

int64_t ExpertSamples::num_pairs(int moe_layer, int expert, TokenClass token_class, TokenPhase phase) const {
  return pairs_[index_of(moe_layer, expert)][static_cast<size_t>(token_class)][static_cast<size_t>(phase)];
}

}  // namespace skipper
