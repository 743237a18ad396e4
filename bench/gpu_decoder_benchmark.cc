#include "bench/gpu_decoder_benchmark.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "base/error.h"

namespace skipper::cuda {
namespace {

constexpr int64_t kBlockSize = 16;
constexpr int64_t kVerifiedSteps = 3;  // a graph is recorded in the second and launched alone in the third
constexpr int kPrefills = 5;
constexpr int64_t kLeastTokens = 1024;  // that a step has room for

Tensor on_host(const Tensor& gpu, Stream& stream) {
  Tensor copy = Tensor::empty(gpu.shape(), gpu.dtype());
  copy_bytes({gpu.bytes(), gpu.device(), copy.bytes(), copy.device(), gpu.num_bytes()}, stream);
  stream.synchronize();
  return copy;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.num_bytes() == b.num_bytes() && std::memcmp(a.bytes(), b.bytes(), a.num_bytes()) == 0;
}

template <typename Work>
double seconds_of(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// All experts of a layer have one format.
double bytes_of_expert(const DeviceLayerWeights& layer) {
  const size_t num_bytes = layer.gate_up.num_bytes() + layer.down.num_bytes() + layer.host_expert_bytes();
  return static_cast<double>(num_bytes) / layer.down.num_matrices();
}

// The first experts of each layer rest on the GPU, the others on the host.
ExpertTiers tiers_of_share(const ModelConfig& model, double device_share) {
  const auto num_experts = static_cast<size_t>(model.moe.num_experts);
  std::vector<GpuExpertTier> layer(num_experts, GpuExpertTier::kHostStreamed);
  std::fill_n(layer.begin(), std::llround(device_share * static_cast<double>(num_experts)), GpuExpertTier::kDevice);
  return {.tiers = std::vector(static_cast<size_t>(model.num_moe_layers()), layer), .are_staged = true};
}

double bytes_of_dense_weights(const DecoderWeights& weights) {
  size_t total = weights.head.num_bytes();
  for (const DeviceLayerWeights& layer : weights.layers) {
    total += layer.qkv.weight.num_bytes() + layer.o.weight.num_bytes() + layer.router.num_bytes();
  }
  return static_cast<double>(total);
}

// Distinct experts of each layer of one step after the other.
class ExpertCensus {
 public:
  explicit ExpertCensus(const DecoderWeights& weights) : weights_(weights) {}

  void count(int64_t layer, const Tensor& expert_ids) {
    std::set<int32_t> experts(expert_ids.data<int32_t>(), expert_ids.data<int32_t>() + expert_ids.num_elements());
    experts.erase(-1);
    counts_.push_back(static_cast<int64_t>(experts.size()));
    const DeviceLayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
    expert_bytes_ += static_cast<double>(experts.size()) * bytes_of_expert(weights);
    const auto num_on_host = std::ranges::count_if(experts, [&](int32_t expert) {
      return weights.down.places[static_cast<size_t>(expert)] == MatrixPlace::kHost;
    });
    host_bytes_ += static_cast<double>(num_on_host) * bytes_of_expert(weights);
  }
  DecodeWork work() const {
    double total = 0.0;
    for (const int64_t count : counts_) total += static_cast<double>(count);
    const double num_steps = static_cast<double>(counts_.size()) / static_cast<double>(weights_.layers.size());
    return {.mean_experts = total / static_cast<double>(counts_.size()),
            .min_experts = *std::ranges::min_element(counts_),
            .max_experts = *std::ranges::max_element(counts_),
            .num_bytes = bytes_of_dense_weights(weights_) + expert_bytes_ / num_steps,
            .num_host_bytes = host_bytes_ / num_steps};
  }

 private:
  const DecoderWeights& weights_;
  std::vector<int64_t> counts_;
  double expert_bytes_ = 0.0;
  double host_bytes_ = 0.0;
};

// The pair rule with the same alpha everywhere.
OperatingPoint point_with(float tau, int num_layers) {
  OperatingPoint point = unskipped_levels(num_layers).levels[0];
  for (auto& alpha : point.alpha) alpha.assign(static_cast<size_t>(num_layers), 1.0f / static_cast<float>(num_layers));
  point.tau = {tau, tau};
  return point;
}

LevelTable three_levels(int num_layers) {
  LevelTable levels = unskipped_levels(num_layers);
  const OperatingPoint decides_only = point_with(std::numeric_limits<float>::min(), num_layers);
  levels.levels.insert(levels.levels.end(), 2, decides_only);
  return levels;
}

// Row by row the index of the largest.
std::set<int64_t> largest_logits(const Tensor& logits) {
  std::set<int64_t> tokens;
  for (int64_t row = 0; row < logits.dim(0); ++row) {
    const float* values = logits.row<float>(row);
    tokens.insert(std::max_element(values, values + logits.dim(1)) - values);
  }
  return tokens;
}

}  // namespace

GpuDecoderBenchmark::GpuDecoderBenchmark(const GpuDecoderConfig& config, Stream& stream)
    : config_(config),
      stream_(stream),
      weights_(random_decoder_weights(config.model, config.formats, 7, stream,
                                      tiers_of_share(config.model, config.device_expert_share))),
      placement_(ExpertPlacement::contiguous({.num_moe_layers = config.model.num_moe_layers(),
                                              .num_experts = static_cast<int>(config.model.moe.num_experts),
                                              .world_size = 1})),
      topology_(std::vector<int>{0}),
      levels_(three_levels(config.model.num_moe_layers())),
      pairs_(config.model.num_moe_layers()) {
  const StepLimits most = limits();
  const DecoderConfig decoder{.limits = most, .graphs = config.graphs, .staging = StagingUse::kPrompts};
  decoder_ = std::make_unique<Decoder>(config_.model, weights_, decoder,
                                       DecoderContext{placement_, topology_, levels_, pairs_, traffic_}, stream);
  written_out_ = std::make_unique<WrittenOutDecoder>(config_.model, weights_, most, stream);
  make_streams();
  fill_contexts(most);
}

StepLimits GpuDecoderBenchmark::limits() const {
  int64_t tokens = std::max(kLeastTokens, config_.context), sequences = 1, positions = config_.context + config_.decode_steps;
  for (const int64_t count : config_.streams) sequences = std::max(sequences, count);
  for (const PromptShape& shape : config_.prompts) {
    tokens = std::max(tokens, shape.num_prompts * shape.num_tokens);
    sequences = std::max(sequences, shape.num_prompts);
    positions = std::max(positions, shape.num_tokens);
  }
  return {.max_tokens = std::max(tokens, sequences),
          .max_logit_rows = sequences,
          .max_sequences = sequences,
          .max_positions = positions + kVerifiedSteps};
}

// Every sequence has blocks of its own.
void GpuDecoderBenchmark::make_streams() {
  uint32_t seed = 0;
  int64_t num_blocks = 0, longest = 1;
  const auto add = [&](std::vector<TokenStream>& streams, int64_t num_tokens) {
    const TokenStream& stream = streams.emplace_back(TokenStreamConfig{
        ++seed, num_tokens, config_.model.vocab_size, kBlockSize, num_blocks});
    num_blocks += stream.num_blocks();
    longest = std::max(longest, stream.num_blocks());
  };
  int64_t num_streams = 0, num_prompts = 0, prompt_tokens = 0;
  for (const int64_t count : config_.streams) num_streams = std::max(num_streams, count);
  for (const PromptShape& shape : config_.prompts) {
    num_prompts = std::max(num_prompts, shape.num_prompts);
    prompt_tokens = std::max(prompt_tokens, shape.num_tokens);
  }
  const int64_t decoded = std::max(kVerifiedSteps, config_.decode_steps);
  for (int64_t i = 0; i < num_streams; ++i) add(streams_, config_.context + decoded);
  for (int64_t i = 0; i < num_prompts; ++i) add(prompts_, prompt_tokens);
  cache_ = std::make_unique<KvCache>(config_.model, KvCacheConfig{num_blocks, kBlockSize}, stream_.device());
  batch_ = std::make_unique<StreamBatch>(std::max(num_streams, num_prompts), longest, kBlockSize);
}

// As many streams at once as a step has room for.
void GpuDecoderBenchmark::fill_contexts(const StepLimits& limits) {
  const auto at_once = static_cast<size_t>(std::min(limits.max_tokens / config_.context, limits.max_sequences));
  for (size_t first = 0; first < streams_.size(); first += at_once) {
    batch_->clear();
    for (size_t i = first; i < std::min(first + at_once, streams_.size()); ++i) batch_->append(streams_[i], 0, config_.context);
    forward(batch_->input());
  }
}

BatchInput GpuDecoderBenchmark::decode_batch(int64_t num_streams, int64_t step) {
  batch_->clear();
  batch_->set_level(kUnskipped);
  const int64_t position = config_.context + step;
  for (int64_t i = 0; i < num_streams; ++i) batch_->append(streams_[static_cast<size_t>(i)], position, position + 1);
  return batch_->input();
}

BatchInput GpuDecoderBenchmark::prompt_batch(const PromptShape& prompts, uint8_t level) {
  batch_->clear();
  batch_->set_level(level);
  for (int64_t i = 0; i < prompts.num_prompts; ++i) batch_->append(prompts_[static_cast<size_t>(i)], 0, prompts.num_tokens);
  return batch_->input();
}

// A server that samples greedily leaves the logits where they are.
StepOutput GpuDecoderBenchmark::forward(BatchInput batch) {
  batch.logit_use = LogitUse::kTokens;
  return decoder_->forward(batch, *cache_, stream_);
}

Tensor GpuDecoderBenchmark::verified_logits(const BatchInput& batch, const std::string& name, const StepObserver& observer) {
  const StepOutput output = forward(batch);
  const Tensor logits = on_host(decoder_->device_logits(), stream_);
  if (!std::ranges::all_of(logits.span<float>(), [](float logit) { return std::isfinite(logit); })) {
    throw Error(name + ": a logit is not finite");
  }
  const Tensor written_out = on_host(written_out_->step(batch, levels_, *cache_, stream_, observer), stream_);
  if (!same_bits(logits, written_out)) throw Error(name + ": the decoder's logits are not those of its kernels one by one");
  return logits;
}

DecodeWork GpuDecoderBenchmark::verify_decode(int64_t num_streams) {
  const std::string name = "decode of " + std::to_string(num_streams) + " streams";
  ExpertCensus census(weights_);
  StepObserver observer;
  observer.on_routing = [&](int64_t layer, const Tensor& expert_ids) { census.count(layer, on_host(expert_ids, stream_)); };
  std::set<int64_t> tokens;
  for (int64_t step = 0; step < kVerifiedSteps; ++step) {
    tokens.merge(largest_logits(verified_logits(decode_batch(num_streams, step), name, observer)));
  }
  if (tokens.size() < 2) throw Error(name + ": all tokens led to the same next token");
  return census.work();
}

double GpuDecoderBenchmark::decode_seconds(int64_t num_streams) {
  std::vector<double> seconds;
  for (int64_t step = 0; step < config_.decode_steps; ++step) {
    const BatchInput batch = decode_batch(num_streams, step);
    seconds.push_back(seconds_of([&] { forward(batch); }));
  }
  return median(seconds);
}

void GpuDecoderBenchmark::verify_prefill(const PromptShape& prompts, uint8_t level) {
  const std::string name = "prefill at level " + std::to_string(level);
  const Tensor logits = verified_logits(prompt_batch(prompts, level), name);
  if (level != kDecidesOnly) return;
  if (!same_bits(logits, verified_logits(prompt_batch(prompts, kUnskipped), name))) {
    throw Error("a threshold that skips nothing changed a logit");
  }
}

double GpuDecoderBenchmark::prefill_seconds(const PromptShape& prompts, uint8_t level) {
  std::vector<double> seconds;
  for (int run = 0; run < kPrefills; ++run) {
    const BatchInput batch = prompt_batch(prompts, level);
    seconds.push_back(seconds_of([&] { forward(batch); }));
  }
  return median(seconds);
}

double GpuDecoderBenchmark::staged_bytes() const {
  return static_cast<double>(weights_.host_expert_bytes() - weights_.layers.back().host_expert_bytes());
}

PartSeconds GpuDecoderBenchmark::prefill_part_seconds(const PromptShape& prompts, uint8_t level) {
  std::array<std::vector<double>, kNumStepParts> samples;
  GpuClock clock(stream_);
  for (int run = 0; run < kPrefills; ++run) {
    const BatchInput batch = prompt_batch(prompts, level);
    std::vector<StepPart> parts;
    clock.clear();
    clock.mark();
    StepObserver observer;
    observer.on_part = [&](StepPart part) {
      parts.push_back(part);
      clock.mark();
    };
    written_out_->step(batch, levels_, *cache_, stream_, observer);
    stream_.synchronize();
    PartSeconds sums{};
    for (size_t i = 0; i < parts.size(); ++i) sums[static_cast<size_t>(parts[i])] += clock.seconds_after(i);
    for (size_t part = 0; part < kNumStepParts; ++part) samples[part].push_back(sums[part]);
  }
  PartSeconds seconds{};
  for (size_t part = 0; part < kNumStepParts; ++part) seconds[part] = median(samples[part]);
  return seconds;
}

double GpuDecoderBenchmark::choose_threshold(const PromptShape& prompts, double share) {
  constexpr int kHalvings = 16;  // random routers give pairs of nearly equal scores
  float low = 0.0f, high = 1.0f / static_cast<float>(config_.model.num_moe_layers());  // a pair's score is at most alpha
  for (int i = 0; i < kHalvings; ++i) {
    const float middle = 0.5f * (low + high);
    (skipped_share(prompts, middle) < share ? low : high) = middle;
  }
  return skipped_share(prompts, high);
}

double GpuDecoderBenchmark::skipped_share(const PromptShape& prompts, float tau) {
  levels_.levels[kChosen] = point_with(tau, config_.model.num_moe_layers());
  ++levels_.version;
  pairs_.clear();
  forward(prompt_batch(prompts, kChosen));
  int64_t run = 0, skipped = 0;
  for (int layer = 0; layer < pairs_.num_moe_layers(); ++layer) {
    run += pairs_.at(layer, TokenPhase::kPrompt, TokenClass::kText, PairOutcome::kRun);
    skipped += pairs_.at(layer, TokenPhase::kPrompt, TokenClass::kText, PairOutcome::kSkipped);
  }
  return static_cast<double>(skipped) / static_cast<double>(run + skipped);
}

}  // namespace skipper::cuda
