#include "tests/expert_parallel/moe_run.h"

#include <algorithm>
#include <random>

#include "expert_parallel/moe_layer.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {

namespace {

// Shadows lie behind the experts that the rank owns.
std::vector<std::vector<ExpertSlot>> slots_of_rank(const MoeSetup& setup, const ExpertPlacement& placement, int rank) {
  std::vector<std::vector<ExpertSlot>> slots = slots_of(placement.experts_of(rank), setup.expert_format);
  for (ExpertSlot& slot : slots[0]) {
    if (placement.owner({.layer = 0, .expert = slot.expert}).rank != rank) slot.format = setup.shadow_format;
  }
  return slots;
}

// The rank's experts of the one MoE layer, copied out of the whole model's.
ExpertStore load_experts(const MoeSetup& setup, const ExpertPlacement& placement, int rank) {
  const MoeWeights& weights = setup.weights;
  const int64_t width = weights.shape.intermediate_size;
  ExpertStore store({.hidden_size = weights.shape.hidden_size,
                     .intermediate_size = width,
                     .slots = slots_of_rank(setup, placement, rank),
                     .bf16_activations = setup.formats.payload_format == PayloadFormat::kBF16 ? ActivationFormat::kBF16
                                                                                                : ActivationFormat::kF32});
  for (const int32_t expert : placement.experts_of(rank, 0)) {
    ExpertMatrices target = store.matrices(0, store.handle({.layer = 0, .expert = expert}).slot);
    const Tensor gate_up = weights.gate_up.at(expert);
    pack_gate_up(gate_up.slice(0, width), gate_up.slice(width, 2 * width), target.gate_up);
    pack_into(weights.down.at(expert), target.down);
  }
  store.freeze();
  return store;
}

// The part of a batch that one rank holds, as tensors.
struct RankTokens {
  std::vector<size_t> tokens;
  Tensor hidden;
  TokenPolicies policies;
};

RankTokens tokens_of(const TokenBatch& batch, int rank) {
  RankTokens part;
  for (size_t t = 0; t < batch.size(); ++t) {
    if (batch.owners[t] == rank) part.tokens.push_back(t);
  }
  const auto num_tokens = static_cast<int64_t>(part.tokens.size());
  part.hidden = Tensor::empty({num_tokens, batch.hidden_size}, DType::kF32);
  part.policies = TokenPolicies::defaults(num_tokens);
  for (size_t i = 0; i < part.tokens.size(); ++i) {
    const auto row = batch.row(part.tokens[i]);
    std::copy(row.begin(), row.end(), part.hidden.row<float>(static_cast<int64_t>(i)));
    part.policies.token_class.data<uint8_t>()[i] = static_cast<uint8_t>(batch.classes[part.tokens[i]]);
    part.policies.level.data<uint8_t>()[i] = batch.levels[part.tokens[i]];
  }
  return part;
}

template <typename T>
std::vector<T> row_of(const Tensor& tensor, size_t row) {
  const T* data = tensor.row<T>(static_cast<int64_t>(row));
  return {data, data + tensor.row_elements()};
}

class RankRun {
 public:
  RankRun(const MoeSetup& setup, const TokenBatch& batch, MoeRun& run) : setup_(setup), batch_(batch), run_(run) {}

  void operator()(Communicator& data) {
    const MoeShape& shape = setup_.weights.shape;
    const auto owners = ExpertPlacement::contiguous(
        {.num_moe_layers = 1, .num_experts = static_cast<int>(shape.num_experts), .world_size = data.size()});
    const ExpertPlacement placement = owners.with_shadows(setup_.shadows);
    const ClusterTopology topology(nodes(data.size()));
    const ExpertStore store = load_experts(setup_, placement, data.rank());
    const ExpertFfn experts(store);
    TrafficCounters& counters = run_.counters[static_cast<size_t>(data.rank())];
    PairCounters pairs(1);
    TokenDispatcher dispatcher({data, topology, placement, counters});
    MoeBuffers buffers({.max_tokens = static_cast<int64_t>(batch_.size()),
                        .num_experts = shape.num_experts,
                        .top_k = shape.top_k,
                        .max_rows_per_pass = setup_.max_rows_per_pass,
                        .formats = setup_.formats},
                       placement, store);
    MoeLayer layer({.hidden_size = shape.hidden_size, .num_experts = shape.num_experts, .top_k = shape.top_k},
                   pack_router(setup_.weights.router),
                   {experts, dispatcher, {setup_.levels, placement, topology, data}, counters, pairs});
    forward(layer, tokens_of(batch_, data.rank()), buffers);
  }

 private:
  std::vector<int> nodes(int world_size) const {
    return setup_.node_of_rank.empty() ? std::vector<int>(static_cast<size_t>(world_size), 0) : setup_.node_of_rank;
  }

  void forward(MoeLayer& layer, const RankTokens& part, MoeBuffers& buffers) {
    layer.set_routing_observer([&](const MoeLayerConfig&, const TokenPolicies&, const Routing& routed, const Routing& kept) {
      for (size_t i = 0; i < part.tokens.size(); ++i) {
        TokenResult& result = run_.tokens[part.tokens[i]];
        result.routed_ids = row_of<int32_t>(routed.expert_ids, i);
        result.kept_ids = row_of<int32_t>(kept.expert_ids, i);
        result.routed_weights = row_of<float>(routed.expert_weights, i);
        result.kept_weights = row_of<float>(kept.expert_weights, i);
      }
    });
    ThreadPool workers(setup_.num_threads);
    Stream stream(workers);
    // Garbage that a token without experts must not keep.
    Tensor out = Tensor::empty(part.hidden.shape(), DType::kF32);
    for (float& value : out.span<float>()) value = 12345.0f;
    layer.forward(part.hidden, part.policies, buffers, out, stream);
    for (size_t i = 0; i < part.tokens.size(); ++i) run_.tokens[part.tokens[i]].out = row_of<float>(out, i);
  }

  const MoeSetup& setup_;
  const TokenBatch& batch_;
  MoeRun& run_;
};

}  // namespace

std::span<const float> TokenBatch::row(size_t token) const {
  const auto width = static_cast<size_t>(hidden_size);
  return std::span(hidden).subspan(token * width, width);
}

TokenBatch TokenBatch::subset(const std::vector<size_t>& tokens) const {
  TokenBatch part;
  part.hidden_size = hidden_size;
  for (const size_t t : tokens) {
    part.hidden.insert(part.hidden.end(), row(t).begin(), row(t).end());
    part.classes.push_back(classes[t]);
    part.levels.push_back(levels[t]);
    part.owners.push_back(owners[t]);
  }
  return part;
}

TokenBatch random_batch(size_t num_tokens, const MoeShape& shape, int world_size, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  TokenBatch batch;
  batch.hidden_size = shape.hidden_size;
  for (size_t i = 0; i < num_tokens * static_cast<size_t>(shape.hidden_size); ++i) {
    batch.hidden.push_back(static_cast<float>(bf16(normal(generator))));
  }
  batch.classes.assign(num_tokens, TokenClass::kText);
  batch.levels.assign(num_tokens, 0);
  for (size_t t = 0; t < num_tokens; ++t) {
    batch.owners.push_back(static_cast<int>(generator() % static_cast<uint32_t>(world_size)));
  }
  return batch;
}

LevelTable levels_with(const std::vector<std::array<float, 2>>& taus) {
  LevelTable table;
  table.levels.push_back({.alpha = {std::vector{1.0f}, std::vector{1.0f}}});
  for (const auto& tau : taus) table.levels.push_back({.alpha = {std::vector{1.0f}, std::vector{1.0f}}, .tau = tau});
  return table;
}

MoeRun run_moe(const MoeSetup& setup, const TokenBatch& batch) {
  MoeRun run;
  run.tokens.resize(batch.size());
  run.counters.resize(static_cast<size_t>(setup.world_size));
  spawn_ranks(setup.world_size, [&](Communicator& data) { RankRun(setup, batch, run)(data); });
  return run;
}

TrafficCounters MoeRun::total() const {
  TrafficCounters sum;
  for (const TrafficCounters& rank : counters) sum += rank;
  return sum;
}

std::vector<std::vector<float>> MoeRun::outputs() const {
  std::vector<std::vector<float>> rows;
  for (const TokenResult& token : tokens) rows.push_back(token.out);
  return rows;
}

int64_t payload_bytes(const TrafficCounters& counters) {
  int64_t sum = 0;
  for (const Hop hop : {Hop::kLocal, Hop::kNode, Hop::kNetwork}) sum += counters.total_payload_bytes(hop);
  return sum;
}

}  // namespace skipper
