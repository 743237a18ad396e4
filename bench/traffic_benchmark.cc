#include "bench/traffic_benchmark.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "base/error.h"

namespace skipper {
namespace {

constexpr int64_t kBlockSize = 16;
constexpr float kNoScore = -1.0f;
constexpr uint64_t kHashSeed = 0xcbf29ce484222325u;  // FNV-1a
constexpr uint64_t kHashPrime = 0x100000001b3u;

OperatingPoint point_with(const OperatingPoint& unskipped, SkippedUnit unit, float threshold) {
  OperatingPoint point = unskipped;
  if (unit == SkippedUnit::kPair) {
    point.tau = {threshold, threshold};
    return point;
  }
  for (auto& of_class : point.tau_dst) {
    of_class[static_cast<size_t>(Hop::kNode)] = threshold;
    of_class[static_cast<size_t>(Hop::kNetwork)] = threshold;
  }
  return point;
}

// Appends what the rules compare with their thresholds, for every token of a layer: p / layers of each of its pairs, or
// Σ p² / layers at each rank, kNoScore at its own and at those that it does not go to: as many for every token.
class ScoreCollector {
 public:
  ScoreCollector(SkippedUnit unit, const ExpertPlacement& placement, int own_rank)
      : unit_(unit), placement_(placement), own_rank_(own_rank) {}

  void add(const MoeLayerConfig& layer, const Routing& routed) {
    const int64_t top_k = routed.expert_weights.dim(1);
    std::vector<float> shares(static_cast<size_t>(top_k));
    for (int64_t t = 0; t < routed.expert_weights.dim(0); ++t) {
      const float* weights = routed.expert_weights.row<float>(t);
      float sum = 0.0f;
      for (int64_t j = 0; j < top_k; ++j) sum += weights[j];
      for (size_t j = 0; j < shares.size(); ++j) shares[j] = weights[j] / sum;
      if (unit_ == SkippedUnit::kPair) {
        add_pairs(shares);
      } else {
        add_destinations(shares, placement_.homes(layer.moe_layer), routed.expert_ids.row<int32_t>(t));
      }
    }
  }

  std::vector<float> take() { return std::move(scores_); }

 private:
  float alpha() const { return 1.0f / static_cast<float>(placement_.num_moe_layers()); }
  void add_pairs(std::span<const float> shares) {
    for (const float share : shares) scores_.push_back(alpha() * share);
  }
  void add_destinations(std::span<const float> shares, std::span<const ExpertHome> homes, const int32_t* ids) {
    const size_t first = scores_.size();
    scores_.resize(first + static_cast<size_t>(placement_.world_size()), kNoScore);
    for (size_t j = 0; j < shares.size(); ++j) {
      const int32_t rank = homes[static_cast<size_t>(ids[j])].rank;
      if (rank == own_rank_) continue;
      float& score = scores_[first + static_cast<size_t>(rank)];
      score = std::max(score, 0.0f) + alpha() * shares[j] * shares[j];
    }
  }

  SkippedUnit unit_;
  const ExpertPlacement& placement_;
  int own_rank_;
  std::vector<float> scores_;
};

double network_bytes_of(const TrafficCounters& traffic) {
  int64_t bytes = 0;
  for (const auto& by_hop : traffic.wire_bytes) bytes += by_hop[static_cast<size_t>(Hop::kNetwork)];
  return static_cast<double>(bytes);
}

double sum_of(const std::array<int64_t, kNumTokenClasses>& by_class) {
  return static_cast<double>(by_class[0] + by_class[1] + by_class[2]);
}

uint64_t hash_of(std::span<const std::byte> bytes) {
  uint64_t hash = kHashSeed;
  for (const std::byte byte : bytes) hash = (hash ^ static_cast<uint64_t>(byte)) * kHashPrime;
  return hash;
}

// One value of every rank, by rank.
template <typename T>
std::vector<T> gather(const std::vector<T>& own, Communicator& data, Stream& stream) {
  std::vector<T> all(own.size() * static_cast<size_t>(data.size()));
  const auto send = std::as_bytes(std::span(own));
  const auto receive = std::as_writable_bytes(std::span(all));
  data.all_gather({send.data(), send.size()}, {receive.data(), receive.size()}, stream);
  return all;
}

}  // namespace

std::string TrafficCase::name() const {
  if (share == 0.0) return "none";
  char percent[16];
  std::snprintf(percent, sizeof(percent), "%.0f %%", 100.0 * share);
  return (unit == SkippedUnit::kPair ? "pairs " : "destinations ") + std::string(percent);
}

TrafficBenchmark::TrafficBenchmark(const TrafficBenchmarkConfig& config, Communicator& data, const ClusterTopology& topology,
                                   ThreadPool& workers)
    : config_(config),
      data_(data),
      topology_(topology),
      stream_(workers),
      model_config_(load_model_config(config.model)),
      levels_(unskipped_levels(model_config_.num_moe_layers())) {
  if (model_config_.num_moe_layers() == 0) throw Error(config.model.string() + " has no experts to skip");
  if (config.prompt_tokens > model_config_.max_position_embeddings) {
    throw Error("a prompt of " + std::to_string(config.prompt_tokens) + " tokens is longer than the model's " +
                std::to_string(model_config_.max_position_embeddings) + "; lower --prompt");
  }
  const StepLimits limits{config.prompt_tokens, 1};
  const ParallelContext parallel{.data = data, .topology = topology, .levels = levels_, .formats = config.formats};
  model_ = std::make_unique<MultimodalModel>(config.model, model_config_, parallel, limits, WeightLoading{{}, workers});
  prompt_ = std::make_unique<TokenStream>(TokenStreamConfig{.seed = static_cast<uint32_t>(data.rank()) + 1,
                                                            .num_tokens = config.prompt_tokens,
                                                            .vocab_size = model_config_.vocab_size,
                                                            .block_size = kBlockSize});
  cache_ = std::make_unique<KvCache>(model_config_, KvCacheConfig{prompt_->num_blocks(), kBlockSize, DType::kBF16});
  batch_ = std::make_unique<StreamBatch>(1, prompt_->num_blocks(), kBlockSize);
  config_.cases.insert(config_.cases.begin(), TrafficCase{});
}

void TrafficBenchmark::find_thresholds() {
  const OperatingPoint unskipped = levels_.levels[0];
  std::array<std::vector<float>, 2> ascending;
  for (const SkippedUnit unit : {SkippedUnit::kPair, SkippedUnit::kDestination}) {
    ascending[static_cast<size_t>(unit)] = scores(unit);
  }
  for (size_t i = 1; i < config_.cases.size(); ++i) {
    const TrafficCase& wanted = config_.cases[i];
    const std::vector<float>& values = ascending[static_cast<size_t>(wanted.unit)];
    if (values.empty()) throw Error("no token goes to another rank; start several ranks, or leave --destinations empty");
    const float threshold = values[static_cast<size_t>(wanted.share * static_cast<double>(values.size()))];
    levels_.levels.push_back(point_with(unskipped, wanted.unit, threshold));
  }
}

std::vector<float> TrafficBenchmark::scores(SkippedUnit unit) {
  ScoreCollector collector(unit, model_->placement(), data_.rank());
  model_->set_routing_observer([&](const MoeLayerConfig& layer, const TokenPolicies&, const Routing& routed, const Routing&) {
    collector.add(layer, routed);
  });
  prefill(0);
  model_->set_routing_observer(nullptr);
  std::vector<float> all = gather(collector.take(), data_, stream_);
  std::erase(all, kNoScore);
  std::ranges::sort(all);
  return all;
}

std::vector<float> TrafficBenchmark::prefill(size_t case_index) {
  batch_->clear();
  batch_->set_level(static_cast<uint8_t>(case_index));
  batch_->append(*prompt_, 0, prompt_->num_tokens());
  const Tensor logits = model_->forward(batch_->input(), *cache_, stream_).logits;
  const std::span<const float> values = logits.span<float>();
  return {values.begin(), values.end()};
}

TrafficRun TrafficBenchmark::run(size_t case_index) {
  const TrafficCounters before = model_->traffic();
  data_.barrier(stream_);
  const auto start = std::chrono::steady_clock::now();
  const std::vector<float> logits = prefill(case_index);
  data_.barrier(stream_);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) {
    throw Error(config_.cases[case_index].name() + ": a logit is not finite; the model or a kernel is broken");
  }
  return summarize(model_->traffic() - before, logits, elapsed.count());
}

TrafficRun TrafficBenchmark::summarize(const TrafficCounters& traffic, const std::vector<float>& logits, double seconds) {
  std::array<double, 3> sums = {sum_of(traffic.pairs_run), sum_of(traffic.pairs_skipped), network_bytes_of(traffic)};
  const std::vector<double> bytes_of_rank = gather(std::vector<double>{sums[2]}, data_, stream_);
  std::vector<double> bytes_of_host(static_cast<size_t>(topology_.num_nodes()));
  for (int rank = 0; rank < data_.size(); ++rank) {
    bytes_of_host[static_cast<size_t>(topology_.node_of(rank))] += bytes_of_rank[static_cast<size_t>(rank)];
  }
  data_.all_reduce_sum(sums, stream_);
  const std::vector<float> all_logits = gather(logits, data_, stream_);
  return {.seconds = seconds,
          .skipped = sums[1] / (sums[0] + sums[1]),
          .network_bytes = sums[2],
          .busiest_host_bytes = *std::ranges::max_element(bytes_of_host),
          .logits_hash = hash_of(std::as_bytes(std::span(all_logits)))};
}

}  // namespace skipper
