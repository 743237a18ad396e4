#include "bench/skip_benchmark.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace skipper {
namespace {

constexpr int64_t kBlockSize = 16;

OperatingPoint point_with(const OperatingPoint& unskipped, float tau) {
  OperatingPoint point = unskipped;
  point.tau = {tau, tau};
  return point;
}

int64_t sum_of(const std::array<int64_t, kNumTokenClasses>& by_class) { return by_class[0] + by_class[1] + by_class[2]; }

}  // namespace

SkipBenchmark::SkipBenchmark(const SkipBenchmarkConfig& config, Communicator& data, const ClusterTopology& topology,
                             ThreadPool& workers)
    : model_config_(load_model_config(config.model)),
      stream_(workers),
      levels_(unskipped_levels(model_config_.num_moe_layers())) {
  if (data.size() != 1) throw Error("this program measures one rank; start it without mpirun");
  if (model_config_.num_moe_layers() == 0) throw Error(config.model.string() + " has no experts to skip");
  if (config.prompt_tokens > model_config_.max_position_embeddings) {
    throw Error("a prompt of " + std::to_string(config.prompt_tokens) + " tokens is longer than the model's " +
                std::to_string(model_config_.max_position_embeddings) + "; lower --prompt");
  }
  const StepLimits limits{config.prompt_tokens, 1};
  model_ = std::make_unique<MultimodalModel>(config.model, model_config_, ParallelContext{data, topology, levels_}, limits,
                                             WeightLoading{config.formats, workers});
  const TokenStreamConfig stream{
      .seed = 1, .num_tokens = config.prompt_tokens, .vocab_size = model_config_.vocab_size, .block_size = kBlockSize};
  prompt_ = std::make_unique<TokenStream>(stream);
  cache_ = std::make_unique<KvCache>(model_config_, KvCacheConfig{prompt_->num_blocks(), kBlockSize, DType::kBF16});
  batch_ = std::make_unique<StreamBatch>(1, prompt_->num_blocks(), kBlockSize);
  add_levels(config.shares);
}

std::vector<float> SkipBenchmark::scores() {
  std::vector<float> scores;
  const auto num_layers = static_cast<float>(model_config_.num_moe_layers());
  model_->set_routing_observer([&](const MoeLayerConfig&, const TokenPolicies&, const Routing& routed, const Routing&) {
    const int64_t top_k = routed.expert_weights.dim(1);
    for (int64_t t = 0; t < routed.expert_weights.dim(0); ++t) {
      const std::span<const float> weights(routed.expert_weights.row<float>(t), static_cast<size_t>(top_k));
      float sum = 0.0f;
      for (const float weight : weights) sum += weight;
      for (const float weight : weights) scores.push_back(weight / sum / num_layers);
    }
  });
  prefill(0);
  model_->set_routing_observer(nullptr);
  std::ranges::sort(scores);
  return scores;
}

void SkipBenchmark::add_levels(const std::vector<double>& shares) {
  const std::vector<float> ascending = scores();
  const OperatingPoint unskipped = levels_.levels[0];
  levels_.levels.push_back(point_with(unskipped, std::numeric_limits<float>::min()));
  for (const double share : shares) {
    const auto index = static_cast<size_t>(share * static_cast<double>(ascending.size()));
    levels_.levels.push_back(point_with(unskipped, ascending[index]));
  }
}

std::vector<float> SkipBenchmark::prefill(size_t case_index) {
  batch_->clear();
  batch_->set_level(static_cast<uint8_t>(case_index));
  batch_->append(*prompt_, 0, prompt_->num_tokens());
  const Tensor logits = model_->forward(batch_->input(), *cache_, stream_).logits;
  const std::span<const float> values = logits.span<float>();
  return {values.begin(), values.end()};
}

double SkipBenchmark::verify(size_t case_index) {
  const TrafficCounters before = model_->traffic();
  const std::vector<float> logits = prefill(case_index);
  const TrafficCounters traffic = model_->traffic() - before;
  if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) {
    throw Error("case " + std::to_string(case_index) + ": a logit is not finite; the model or a kernel is broken");
  }
  if (case_index == 0) unskipped_ = logits;
  if (case_index == 1 && logits != unskipped_) throw Error("a threshold that skips nothing changed a logit");
  const auto num_skipped = static_cast<double>(sum_of(traffic.pairs_skipped));
  return num_skipped / (num_skipped + static_cast<double>(sum_of(traffic.pairs_run)));
}

PrefillTime SkipBenchmark::measure(size_t case_index) {
  const auto experts_before = model_->expert_time();
  const auto start = std::chrono::steady_clock::now();
  prefill(case_index);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  const std::chrono::duration<double> in_experts = model_->expert_time() - experts_before;
  return {elapsed.count(), in_experts.count()};
}

}  // namespace skipper
