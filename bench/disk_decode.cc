#include "bench/disk_decode.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "residency/disk_residence.h"

namespace skipper {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBlockSize = 16;
constexpr uint32_t kStreamSeed = 7, kPromptSeed = 8;

ExpertAssignment all_experts(const ModelConfig& model, const WeightFormat& format, ExpertTier rest) {
  const int num_experts = static_cast<int>(model.moe.num_experts);
  ExpertAssignment assignment{ExpertPlacement::contiguous({model.num_moe_layers(), num_experts, 1}), {}};
  for (int layer = 0; layer < model.num_moe_layers(); ++layer) {
    assignment.slots.emplace_back(static_cast<size_t>(num_experts), AssignedExpert{.format = format, .rest = rest});
  }
  return assignment;
}

int64_t num_blocks_of(int64_t num_tokens) { return (num_tokens + kBlockSize - 1) / kBlockSize; }

}  // namespace

DiskDecode::DiskDecode(const DiskDecodeConfig& config, const RouteTrace& routes, Communicator& data,
                       const ClusterTopology& topology, ThreadPool& workers)
    : config_(config),
      data_(data),
      workers_(workers),
      stream_(workers),
      model_config_(load_model_config(config.model)),
      levels_(unskipped_levels(model_config_.num_moe_layers())),
      cursor_{routes} {
  load(topology);
  const int64_t num_tokens = config_.context + static_cast<int64_t>(routes.sets.size()) / model_config_.num_moe_layers() + 1;
  tokens_ = std::make_unique<TokenStream>(TokenStreamConfig{.seed = kStreamSeed,
                                                            .num_tokens = num_tokens,
                                                            .vocab_size = model_config_.vocab_size,
                                                            .block_size = kBlockSize});
  prompt_ = std::make_unique<TokenStream>(TokenStreamConfig{.seed = kPromptSeed,
                                                            .num_tokens = config_.prompt,
                                                            .vocab_size = model_config_.vocab_size,
                                                            .block_size = kBlockSize,
                                                            .first_block = num_blocks_of(num_tokens)});
  const int64_t longest = std::max(num_blocks_of(num_tokens), num_blocks_of(config_.prompt));
  batch_ = std::make_unique<StreamBatch>(1, longest, kBlockSize);
  const int64_t num_blocks = num_blocks_of(num_tokens) + num_blocks_of(config_.prompt);
  cache_ = std::make_unique<KvCache>(model_config_, KvCacheConfig{num_blocks, kBlockSize, DType::kBF16});
  batch_->append(*tokens_, 0, config_.context);
  const Tensor logits = model_->forward(batch_->input(), *cache_, stream_).logits;
  tokens_->token_ids[static_cast<size_t>(config_.context)] = likeliest(logits);
}

DiskDecode::~DiskDecode() = default;

void DiskDecode::load(const ClusterTopology& topology) {
  const StepLimits limits{std::max(config_.context, config_.prompt), 1};
  const ParallelContext parallel{data_, topology, levels_};
  model_ = std::make_unique<MultimodalModel>(config_.model, model_config_, parallel, limits, loading());
  model_->set_routing_observer([this](const MoeLayerConfig& layer, const TokenPolicies&, const Routing&, const Routing& kept) {
    if (is_planting_) plant(layer, kept);
  });
}

WeightLoading DiskDecode::loading() {
  WeightLoading loading{.workers = workers_};
  loading.assignment = all_experts(model_config_, config_.format, config_.disk ? ExpertTier::kDisk : ExpertTier::kHost);
  loading.disk = config_.disk;
  if (!loading.disk) return loading;
  ResidenceParts& parts = loading.disk->parts;
  if (config_.eviction == KnownEviction::kBelady) parts.make_eviction = [this] { return make_belady_eviction(cursor_); };
  if (config_.foresight == KnownForesight::kOracle) parts.make_predictor = [this] { return make_oracle_predictor(cursor_); };
  if (config_.foresight == KnownForesight::kWrong) parts.make_predictor = [this] { return make_wrong_predictor(cursor_); };
  return loading;
}

// The observer runs between the router and the experts, and the ids that it sees are those that the experts get. Nothing but a
// benchmark may write them.
void DiskDecode::plant(const MoeLayerConfig& layer, const Routing& kept) {
  cursor_.set = num_steps_ * model_config_.num_moe_layers() + layer.moe_layer;
  const RouteSet& set = cursor_.trace.sets[static_cast<size_t>(cursor_.set)];
  Tensor ids = kept.expert_ids;
  if (set.layer != layer.moe_layer || static_cast<int64_t>(set.experts.size()) != ids.num_elements()) {
    throw Error("the routes have " + std::to_string(set.experts.size()) + " experts where the model takes " +
                std::to_string(ids.num_elements()) + "; record them on a model whose top-k fits");
  }
  std::ranges::copy(set.experts, ids.data<int32_t>());
}

int32_t DiskDecode::likeliest(const Tensor& logits) const {
  const std::span<const float> values = logits.span<float>();
  return static_cast<int32_t>(std::ranges::max_element(values) - values.begin());
}

DiskReading DiskDecode::reading() const {
  const DiskResidence* residence = model_->disk_residence();
  return residence == nullptr ? DiskReading() : residence->reading();
}

DecodeRun DiskDecode::decode(int64_t num_tokens) {
  const int64_t num_routed = static_cast<int64_t>(cursor_.trace.sets.size()) / model_config_.num_moe_layers();
  if (num_steps_ + num_tokens > num_routed) {
    throw Error("the routes are of " + std::to_string(num_routed) + " tokens, of which " + std::to_string(num_steps_) +
                " have run; ask for fewer or plant more");
  }
  DecodeRun run;
  is_planting_ = true;
  const auto start = Clock::now();
  for (int64_t i = 0; i < num_tokens; ++i) {
    const int64_t position = config_.context + num_steps_;
    batch_->clear();
    batch_->append(*tokens_, position, position + 1);
    run.tokens.push_back(likeliest(model_->forward(batch_->input(), *cache_, stream_).logits));
    tokens_->token_ids[static_cast<size_t>(position) + 1] = run.tokens.back();
    ++num_steps_;
  }
  run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  is_planting_ = false;
  cursor_.set = -1;
  run.disk = reading();
  return run;
}

DecodeRun DiskDecode::prefill() {
  DecodeRun run;
  batch_->clear();
  batch_->append(*prompt_, 0, config_.prompt);
  const auto start = Clock::now();
  run.tokens.push_back(likeliest(model_->forward(batch_->input(), *cache_, stream_).logits));
  run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  run.disk = reading();
  return run;
}

}  // namespace skipper
