// Tokens per second of a decoder in the shape of Qwen3-30B-A3B with random weights, made on the GPU that it runs on.
#include <gflags/gflags.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <sstream>

#include "base/error.h"
#include "bench/benchmark_flags.h"
#include "bench/gpu_decoder_benchmark.h"
#include "bench/skip_decision_cost.h"
#include "kernels/cuda/matrix_products.h"

DEFINE_string(formats, "bf16", "bf16, mixed (BF16, experts in int4-g64) or int4 (all in int4-g64); several by commas");
DEFINE_int32(layers, 48, "decoder layers; the model has 48");
DEFINE_string(streams, "1,8,32,128", "numbers of streams of the decode steps; empty: none");
DEFINE_string(prompts, "1x2048,4x2048", "prompts x tokens of the prefills; empty: none");
DEFINE_string(skip, "0.75,0.88", "shares of pairs to skip in each prefill; empty: none");
DEFINE_string(graphs, "decode", "decode: decode steps are CUDA graphs; none: every kernel is launched on its own");
DEFINE_string(device_expert_share, "1", "shares of experts in GPU memory, the others are read from the host; by commas");
DEFINE_int64(context, 128, "tokens of a stream before it decodes");
DEFINE_int64(steps, 32, "decode steps that are timed");

namespace skipper::cuda {
namespace {

constexpr char kIntroduction[] =
    "Measures decode and prefill on one GPU. Every case is verified before it is timed: finite logits that are, bit by bit,\n"
    "those of the same kernels launched one by one; and different tokens lead to different next tokens. Medians.\n\n"
    "  gpu_model_perf --formats bf16,mixed,int4 --skip \"\"\n"
    "  gpu_model_perf --streams \"\" --prompts 4x2048 --skip 0.75,0.88\n"
    "  gpu_model_perf --formats mixed --device_expert_share 1,0.9,0.5,0\n\n";

std::vector<std::string> parts_of(const std::string& text, char separator = ',') {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

RandomWeightFormats parse_formats(const std::string& name) {
  const WeightFormat bf16{WeightKind::kBF16, 0}, int4{WeightKind::kInt4, 64};
  if (name == "bf16") return {.experts = bf16, .dense = bf16};
  if (name == "mixed") return {.experts = int4, .dense = bf16};
  if (name == "int4") return {.experts = int4, .dense = int4};
  throw UsageError("flag --formats: '" + name + "' is none of bf16, mixed, int4");
}

GraphUse parse_graphs() {
  if (FLAGS_graphs == "decode") return GraphUse::kDecodeSteps;
  if (FLAGS_graphs == "none") return GraphUse::kNone;
  throw UsageError("flag --graphs: '" + FLAGS_graphs + "' is neither decode nor none");
}

std::vector<PromptShape> parse_prompts() {
  std::vector<PromptShape> prompts;
  for (const std::string& part : parts_of(FLAGS_prompts)) {
    const std::vector<std::string> sizes = parts_of(part, 'x');
    if (sizes.size() != 2) throw UsageError("flag --prompts: '" + part + "' is not prompts x tokens, such as 4x2048");
    prompts.push_back({parse_sizes("prompts", sizes[0]).at(0), parse_sizes("prompts", sizes[1]).at(0)});
  }
  return prompts;
}

double parse_share(const char* flag, const std::string& text) {
  double share = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), share);
  if (error != std::errc() || end != text.data() + text.size() || !(share >= 0.0 && share <= 1.0)) {
    throw UsageError(std::string("flag --") + flag + ": '" + text + "' is not a share from 0 to 1");
  }
  return share;
}

std::vector<double> parse_skipped_shares() {
  std::vector<double> shares;
  for (const std::string& part : parts_of(FLAGS_skip)) {
    const double share = parse_share("skip", part);
    if (share == 1.0) throw UsageError("flag --skip: without any pair there is nothing to measure");
    if (share > 0.0) shares.push_back(share);  // without skipping is always measured
  }
  return shares;
}

std::vector<double> parse_device_expert_shares() {
  std::vector<double> shares;
  for (const std::string& part : parts_of(FLAGS_device_expert_share)) shares.push_back(parse_share("device_expert_share", part));
  return shares;
}

ModelConfig qwen3_30b_a3b(int num_layers) {
  ModelConfig model;
  model.model_type = "qwen3_moe";
  model.vocab_size = 151936;
  model.hidden_size = 2048;
  model.max_position_embeddings = 40960;
  model.feed_forward.assign(static_cast<size_t>(num_layers), FeedForwardKind::kMixtureOfExperts);
  model.attention = {.num_heads = 32, .has_bias = false, .kv = {.kv_heads = 4, .key_dim = 128, .value_dim = 128}};
  model.rotary.theta = 1e6;
  model.rotary.dim = 128;
  model.moe.num_experts = 128;
  model.moe.top_k = 8;
  model.moe.intermediate_size = 768;
  return model;
}

GpuDecoderConfig read_flags(const std::string& formats, double device_expert_share) {
  const std::pair<const char*, int64_t> counts[] = {
      {"layers", FLAGS_layers}, {"context", FLAGS_context}, {"steps", FLAGS_steps}};
  for (const auto& [name, value] : counts) {
    if (value < 1) throw UsageError(std::string("flag --") + name + ": " + std::to_string(value) + " is less than 1");
  }
  return {.model = qwen3_30b_a3b(FLAGS_layers),
          .formats = parse_formats(formats),
          .streams = parse_sizes("streams", FLAGS_streams),
          .prompts = parse_prompts(),
          .context = FLAGS_context,
          .decode_steps = FLAGS_steps,
          .graphs = parse_graphs(),
          .device_expert_share = device_expert_share};
}

// A product of one row reads its weights once, which is faster than a copy that also writes.
double read_bytes_per_second(Stream& stream) {
  const std::vector<WeightFormat> bf16 = {{WeightKind::kBF16, 0}};
  DeviceMatrices head = empty_device_matrices(bf16, {151936, 2048}, stream.device());
  fill_random(head, 1, stream);
  const Tensor x = Tensor::zeros({1, head.shape.num_columns}, DType::kBF16, stream.device());
  Tensor logits = Tensor::empty({1, head.shape.num_rows}, DType::kF32, stream.device());
  const double seconds = graph_seconds(8, [&](int) { linear(x, head, logits, stream); }, stream);
  return static_cast<double>(head.num_bytes()) / seconds;
}

// What deciding over every pair adds to a step of `num_tokens` rows.
void print_decision_cost(const GpuDecoderBenchmark& benchmark, int64_t num_tokens, double step_seconds, Stream& stream) {
  const ModelConfig model = qwen3_30b_a3b(FLAGS_layers);
  const double without = routing_seconds(model, benchmark.levels(), kUnskipped, num_tokens, stream);
  const double with = routing_seconds(model, benchmark.levels(), kDecidesOnly, num_tokens, stream);
  std::printf("  skip decision: routing kernel %.2f us without, %.2f us with thresholds: %.3f %% of the step\n", without * 1e6,
              with * 1e6, 100.0 * (with - without) * model.num_moe_layers() / step_seconds);
}

// Bytes per second of the GPU's memory, and over the bus.
struct ReadRates {
  double memory = 0.0;
  double bus = 0.0;
};

void print_bus_bound(double num_bytes, double seconds, const ReadRates& rates) {
  const double bound = num_bytes / rates.bus;
  std::printf("  experts from the host: %.2f GB, bound of the bus %.3f ms, %.1f %% reached\n", num_bytes * 1e-9, bound * 1e3,
              100.0 * bound / seconds);
}

void measure_decode(GpuDecoderBenchmark& benchmark, int64_t num_streams, const ReadRates& rates, Stream& stream) {
  const DecodeWork work = benchmark.verify_decode(num_streams);
  const double seconds = benchmark.decode_seconds(num_streams), bound = (work.num_bytes - work.num_host_bytes) / rates.memory;
  std::printf("decode %4lld streams: %8.3f ms %9.1f tok/s | experts of a layer %.1f (%lld to %lld) | %.2f GB, bound %.3f ms, "
              "%.1f %% reached\n",
              static_cast<long long>(num_streams), seconds * 1e3, static_cast<double>(num_streams) / seconds, work.mean_experts,
              static_cast<long long>(work.min_experts), static_cast<long long>(work.max_experts),
              (work.num_bytes - work.num_host_bytes) * 1e-9,
              bound * 1e3, 100.0 * bound / seconds);
  if (work.num_host_bytes > 0.0) return print_bus_bound(work.num_host_bytes, seconds, rates);
  print_decision_cost(benchmark, num_streams, seconds, stream);
}

void print_parts(const PartSeconds& parts) {
  double total = 0.0;
  for (const double seconds : parts) total += seconds;
  std::printf("  parts, one by one:");
  for (size_t part = 0; part < kNumStepParts; ++part) {
    std::printf(" %s %.2f ms%s", std::string(kStepPartNames[part]).c_str(), parts[part] * 1e3,
                part + 1 < kNumStepParts ? "," : "");
  }
  std::printf(" = %.2f ms\n", total * 1e3);
}

struct Prefill {
  double seconds = 0.0;
  PartSeconds parts{};

  double expert_seconds() const { return parts[static_cast<size_t>(StepPart::kExperts)]; }
};

Prefill measure_prefill(GpuDecoderBenchmark& benchmark, const PromptShape& prompts, uint8_t level) {
  benchmark.verify_prefill(prompts, level);
  return {benchmark.prefill_seconds(prompts, level), benchmark.prefill_part_seconds(prompts, level)};
}

// Amdahl: expert products shrink with the pairs that run, everything else stays.
void measure_skipping(GpuDecoderBenchmark& benchmark, const PromptShape& prompts, double share, const Prefill& unskipped) {
  const double counted = benchmark.choose_threshold(prompts, share);
  const Prefill skipped = measure_prefill(benchmark, prompts, kChosen);
  const double bound = unskipped.seconds - counted * unskipped.expert_seconds();
  std::printf("  skip %.1f %% of pairs (counted): %.2f ms, %.2f x; experts %.2f x; Amdahl's bound %.2f ms (%.2f x), %.1f %% "
              "reached\n",
              100.0 * counted, skipped.seconds * 1e3, unskipped.seconds / skipped.seconds,
              unskipped.expert_seconds() / skipped.expert_seconds(), bound * 1e3, unskipped.seconds / bound,
              100.0 * bound / skipped.seconds);
  print_parts(skipped.parts);
}

void print_prefill(const PromptShape& prompts, double seconds) {
  std::printf("prefill %lld x %lld: %.2f ms %.0f tok/s\n", static_cast<long long>(prompts.num_prompts),
              static_cast<long long>(prompts.num_tokens), seconds * 1e3,
              static_cast<double>(prompts.num_prompts * prompts.num_tokens) / seconds);
}

// Kernel by kernel nothing is staged, so parts would say nothing.
void measure_staged_prefill(GpuDecoderBenchmark& benchmark, const PromptShape& prompts, const ReadRates& rates) {
  benchmark.verify_prefill(prompts, kUnskipped);
  const double seconds = benchmark.prefill_seconds(prompts, kUnskipped);
  print_prefill(prompts, seconds);
  print_bus_bound(benchmark.staged_bytes(), seconds, rates);
  std::fflush(stdout);
}

void measure_prefills(GpuDecoderBenchmark& benchmark, const PromptShape& prompts, Stream& stream) {
  const Prefill unskipped = measure_prefill(benchmark, prompts, kUnskipped);
  const int64_t num_tokens = prompts.num_prompts * prompts.num_tokens;
  print_prefill(prompts, unskipped.seconds);
  print_parts(unskipped.parts);
  benchmark.verify_prefill(prompts, kDecidesOnly);
  print_decision_cost(benchmark, num_tokens, unskipped.seconds, stream);
  for (const double share : parse_skipped_shares()) measure_skipping(benchmark, prompts, share, unskipped);
  std::fflush(stdout);
}

void measure_formats(const std::string& formats, double device_expert_share, const ReadRates& rates, Stream& stream) {
  const GpuDecoderConfig config = read_flags(formats, device_expert_share);
  GpuDecoderBenchmark benchmark(config, stream);
  std::printf("\n%s: weights %.2f GB", formats.c_str(), static_cast<double>(benchmark.weights().num_bytes()) * 1e-9);
  const auto host_bytes = static_cast<double>(benchmark.weights().host_expert_bytes());
  if (host_bytes > 0.0) std::printf(", and %.2f GB of experts on the host", host_bytes * 1e-9);
  std::printf("\n");
  for (const int64_t num_streams : config.streams) {
    measure_decode(benchmark, num_streams, rates, stream);
    std::fflush(stdout);
  }
  for (const PromptShape& prompts : config.prompts) {
    if (host_bytes > 0.0) {
      measure_staged_prefill(benchmark, prompts, rates);
    } else {
      measure_prefills(benchmark, prompts, stream);
    }
  }
}

void run() {
  parse_skipped_shares();
  parse_device_expert_shares();
  for (const std::string& formats : parts_of(FLAGS_formats)) read_flags(formats, 1.0);
  if (num_gpus() == 0) throw DeviceError("no GPU in this machine; gpu_model_perf needs one");
  Stream stream(Device::cuda(0));
  const double copied = copy_bytes_per_second(stream), read = read_bytes_per_second(stream);
  std::printf("memory: %.2f TB/s by a copy, read and written bytes both counted; %.2f TB/s by a BF16 product of one row with\n"
              "the head; bounds are bytes over the higher rate\n"
              "bytes of a decode step: dense weights, head, and the different experts counted in each layer\n",
              copied * 1e-12, read * 1e-12);
  const ReadRates rates{std::max(copied, read), host_copy_bytes_per_second(stream)};
  std::printf("bus: %.1f GB/s by a copy from page-locked host memory\n", rates.bus * 1e-9);
  for (const std::string& formats : parts_of(FLAGS_formats)) {
    for (const double share : parse_device_expert_shares()) measure_formats(formats, share, rates, stream);
  }
}

}  // namespace
}  // namespace skipper::cuda

int main(int argc, char** argv) {
  return skipper::benchmark_main({"gpu_model_perf", skipper::cuda::kIntroduction, __FILE__, skipper::cuda::run}, argc, argv);
}
