#include "residency/expert_predictor.h"

#include <algorithm>
#include <numeric>

#include "kernels/top_k_softmax.h"
#include "residency/expert_transitions.h"
#include "tensor/dtype.h"

namespace skipper {
namespace {

// Of a long prompt so many tokens, evenly spread, speak for all.
constexpr int64_t kMostTokens = 32;

// rows[i] = one of the tokens, as f32.
void spread_rows(const Tensor& tokens, Tensor& rows) {
  const int64_t width = tokens.dim(1);
  for (int64_t i = 0; i < rows.dim(0); ++i) {
    const int64_t token = i * tokens.dim(0) / rows.dim(0);
    if (tokens.dtype() == DType::kF32) {
      std::copy_n(tokens.row<float>(token), width, rows.row<float>(i));
    } else {
      std::ranges::transform(std::span(tokens.row<bf16>(token), static_cast<size_t>(width)), rows.row<float>(i),
                             [](bf16 value) { return float{value}; });
    }
  }
}

// From one layer to the next the hidden state changes little, so that the next router says nearly the same of it (HOBBIT,
// mixtral-offloading).
class GatePredictor final : public ExpertPredictor {
 public:
  GatePredictor(const ExpertCounts& counts, const RouterGates& routers)
      : hidden_(Tensor::empty({kMostTokens, routers.gates.front().num_columns}, DType::kF32)),
        logits_(Tensor::empty({kMostTokens, counts.num_experts}, DType::kF32)),
        ids_(Tensor::empty({kMostTokens, routers.top_k}, DType::kI32)),
        weights_(Tensor::empty({kMostTokens, routers.top_k}, DType::kF32)),
        votes_(static_cast<size_t>(counts.num_experts)) {
    for (const PackedMatrix& gate : routers.gates) gates_.push_back({gate, {}});
  }

  void observe(int /*layer*/, std::span<const int32_t> /*experts*/) override {}

  std::vector<int32_t> predict(int layer, const Tensor& tokens, size_t count, Stream& stream) override {
    const int64_t num_rows = std::min(tokens.dim(0), kMostTokens);
    if (num_rows == 0) return {};
    Tensor rows = hidden_.first(num_rows), logits = logits_.first(num_rows);
    Tensor ids = ids_.first(num_rows), weights = weights_.first(num_rows);
    spread_rows(tokens, rows);
    linear(rows, gates_[static_cast<size_t>(layer)], logits, stream);
    top_k_softmax(logits, TopKNormalization::kNone, ids, weights, stream);
    return most_voted(ids.span<int32_t>(), weights.span<float>(), count);
  }

 private:
  std::vector<int32_t> most_voted(std::span<const int32_t> ids, std::span<const float> weights, size_t count) {
    std::ranges::fill(votes_, 0.0f);
    for (size_t i = 0; i < ids.size(); ++i) votes_[static_cast<size_t>(ids[i])] += weights[i];
    std::vector<int32_t> order(votes_.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::ranges::greater{}, [&](int32_t e) { return votes_[static_cast<size_t>(e)]; });
    order.resize(std::min(count, order.size()));
    std::erase_if(order, [&](int32_t e) { return votes_[static_cast<size_t>(e)] <= 0.0f; });
    return order;
  }

  std::vector<PackedLinear> gates_;
  Tensor hidden_, logits_, ids_, weights_;
  std::vector<float> votes_;
};

class TablePredictor final : public ExpertPredictor {
 public:
  explicit TablePredictor(const ExpertCounts& counts) : transitions_(counts) {}

  void observe(int layer, std::span<const int32_t> experts) override { transitions_.observe(layer, experts); }
  std::vector<int32_t> predict(int layer, const Tensor& /*tokens*/, size_t count, Stream& /*stream*/) override {
    return transitions_.likely(layer, count);
  }

 private:
  ExpertTransitions transitions_;
};

}  // namespace

std::unique_ptr<ExpertPredictor> make_expert_predictor(ForesightRule rule, const ExpertCounts& counts,
                                                       const RouterGates& routers) {
  switch (rule) {
    case ForesightRule::kNone:
      return nullptr;
    case ForesightRule::kGate:
      return std::make_unique<GatePredictor>(counts, routers);
    case ForesightRule::kTable:
      return std::make_unique<TablePredictor>(counts);
  }
  return nullptr;
}

}  // namespace skipper
