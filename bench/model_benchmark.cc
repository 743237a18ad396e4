#include "bench/model_benchmark.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace skipper {
namespace {

constexpr int64_t kBlockSize = 16;
constexpr uint32_t kPromptSeed = 1u << 20;  // streams have the seeds below

int64_t largest(const std::vector<BenchmarkCase>& cases, Phase phase) {
  int64_t size = 0;
  for (const BenchmarkCase& benchmark : cases) {
    if (benchmark.phase == phase) size = std::max(size, benchmark.size);
  }
  return size;
}

void check_lengths(const ModelBenchmarkConfig& config, const ModelConfig& model) {
  const int64_t longest = std::max(largest(config.cases, Phase::kPrefill), config.context + config.decode_steps);
  if (longest <= model.max_position_embeddings) return;
  throw Error("a sequence of " + std::to_string(longest) + " tokens is longer than the model's " +
                   std::to_string(model.max_position_embeddings) + "; lower --prefill, --context or --steps");
}

}  // namespace

std::string BenchmarkCase::name() const {
  return (phase == Phase::kPrefill ? "prefill " : "decode ") + std::to_string(size);
}

ModelBenchmark::ModelBenchmark(const ModelBenchmarkConfig& config, Communicator& data, const ClusterTopology& topology,
                               ThreadPool& workers)
    : config_(config),
      data_(data),
      stream_(workers),
      model_config_(load_model_config(config.model)),
      levels_(unskipped_levels(model_config_.num_moe_layers())),
      bytes_(model_config_, formats_in_memory(model_config_, config.formats)),
      census_(model_config_, bytes_.experts()),
      expected_(config.cases.size()) {
  check_lengths(config_, model_config_);
  make_streams();
  const auto num_streams = static_cast<int64_t>(streams_.size());
  const StepLimits limits{std::max({prompt_->num_tokens(), num_streams, config_.context}), std::max<int64_t>(num_streams, 1)};
  const ParallelContext parallel{data_, topology, levels_};
  const WeightLoading loading{config_.formats, workers};
  model_ = std::make_unique<MultimodalModel>(config_.model, model_config_, parallel, limits, loading);
  model_->set_routing_observer([this](const MoeLayerConfig& layer, const TokenPolicies&, const Routing&, const Routing& kept) {
    if (census_is_open_) census_.observe(layer, kept);
  });
}

// The prompt's blocks come first in the cache, then those of one stream after the other.
void ModelBenchmark::make_streams() {
  const int64_t prompt_tokens = largest(config_.cases, Phase::kPrefill);
  TokenStreamConfig stream{.seed = kPromptSeed + static_cast<uint32_t>(data_.rank()),
                           .num_tokens = prompt_tokens,
                           .vocab_size = model_config_.vocab_size,
                           .block_size = kBlockSize};
  prompt_ = std::make_unique<TokenStream>(stream);
  int64_t num_blocks = prompt_->num_blocks();
  int64_t longest = num_blocks;
  stream.num_tokens = config_.context + config_.decode_steps;
  for (size_t i = 0; i < num_local_streams(largest(config_.cases, Phase::kDecode)); ++i) {
    stream.seed = static_cast<uint32_t>(i) * static_cast<uint32_t>(data_.size()) + static_cast<uint32_t>(data_.rank());
    stream.first_block = num_blocks;
    streams_.emplace_back(stream);
    num_blocks += streams_.back().num_blocks();
    longest = std::max(longest, streams_.back().num_blocks());
  }
  const int64_t max_streams = std::max<int64_t>(static_cast<int64_t>(streams_.size()), 1);
  batch_ = std::make_unique<StreamBatch>(max_streams, std::max<int64_t>(longest, 1), kBlockSize);
  cache_ = std::make_unique<KvCache>(model_config_, KvCacheConfig{std::max<int64_t>(num_blocks, 1), kBlockSize, DType::kBF16});
}

size_t ModelBenchmark::num_local_streams(int64_t num_streams) const {
  return static_cast<size_t>((num_streams + data_.size() - 1 - data_.rank()) / data_.size());
}

void ModelBenchmark::fill_contexts() {
  // Rank 0 has the most streams; the others join its steps, in the end with nothing.
  const int64_t num_streams = largest(config_.cases, Phase::kDecode);
  const auto num_steps = static_cast<size_t>((num_streams + data_.size() - 1) / data_.size());
  for (size_t step = 0; step < num_steps; ++step) {
    batch_->clear();
    if (step < streams_.size()) batch_->append(streams_[step], 0, config_.context);
    model_->forward(batch_->input(), *cache_, stream_);
  }
}

std::vector<float> ModelBenchmark::forward() {
  if (census_is_open_) census_.start_step();
  const Tensor logits = model_->forward(batch_->input(), *cache_, stream_).logits;
  const std::span<const float> values = logits.span<float>();
  return {values.begin(), values.end()};
}

std::vector<float> ModelBenchmark::run(const BenchmarkCase& benchmark) {
  if (benchmark.phase == Phase::kPrefill) {
    batch_->clear();
    batch_->append(*prompt_, 0, benchmark.size);
    return forward();
  }
  std::vector<float> logits;
  for (int64_t step = 0; step < config_.decode_steps; ++step) {
    const int64_t position = config_.context + step;
    batch_->clear();
    for (size_t i = 0; i < num_local_streams(benchmark.size); ++i) batch_->append(streams_[i], position, position + 1);
    logits = forward();
  }
  return logits;
}

StepWork ModelBenchmark::verify(size_t case_index) {
  const BenchmarkCase& benchmark = config_.cases[case_index];
  if (benchmark.phase == Phase::kDecode) fill_contexts();
  census_is_open_ = true;
  std::vector<float>& expected = expected_[case_index];
  expected = run(benchmark);
  census_is_open_ = false;
  const bool is_finite = std::ranges::all_of(expected, [](float logit) { return std::isfinite(logit); });
  if (!is_finite) throw Error(benchmark.name() + ": a logit is not finite; the model or a kernel is broken");
  check_logits(benchmark, run(benchmark), expected);
  const DistinctExperts experts = census_.take(data_, stream_);
  return {experts, bytes_of_step(benchmark, experts)};
}

void ModelBenchmark::check_logits(const BenchmarkCase& benchmark, const std::vector<float>& logits,
                                  const std::vector<float>& expected) const {
  const bool equal = logits.size() == expected.size() &&
                     (logits.empty() || std::memcmp(logits.data(), expected.data(), logits.size() * sizeof(float)) == 0);
  if (equal) return;
  throw Error(benchmark.name() + ": two runs of the same tokens gave different logits on rank " + std::to_string(data_.rank()) +
              "; no time of them means anything");
}

double ModelBenchmark::measure(size_t case_index) {
  const BenchmarkCase& benchmark = config_.cases[case_index];
  data_.barrier(stream_);
  const auto start = std::chrono::steady_clock::now();
  const std::vector<float> logits = run(benchmark);
  data_.barrier(stream_);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  check_logits(benchmark, logits, expected_[case_index]);
  const int64_t num_steps = benchmark.phase == Phase::kPrefill ? data_.size() : config_.decode_steps;
  return static_cast<double>(benchmark.size * num_steps) / elapsed.count();
}

// Every rank with tokens reads all dense weights; an expert is read by its one owner.
double ModelBenchmark::bytes_of_step(const BenchmarkCase& benchmark, const DistinctExperts& experts) const {
  const bool is_prefill = benchmark.phase == Phase::kPrefill;
  const int64_t num_ranks = is_prefill ? data_.size() : std::min<int64_t>(benchmark.size, data_.size());
  const int64_t num_tokens = is_prefill ? benchmark.size * data_.size() : benchmark.size;
  // A prefill writes its K and V and finds them in the cache; a decode reads those of its whole sequence.
  const int64_t num_cached = is_prefill ? 0 : benchmark.size * (config_.context + config_.decode_steps / 2);
  return static_cast<double>(num_ranks) * bytes_.dense() + experts.bytes_per_step +
         static_cast<double>(num_tokens) * bytes_.embedding_row() + static_cast<double>(num_cached) * bytes_.cached_token();
}

}  // namespace skipper
