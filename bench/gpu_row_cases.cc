#include "bench/gpu_row_cases.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "bench/gpu_tensors.h"
#include "cluster/token_class.h"
#include "kernels/cuda/decoder_rows.h"
#include "kernels/cuda/expert_rows.h"
#include "kernels/cuda/expert_sums.h"
#include "kernels/cuda/routing.h"

namespace skipper::cuda {
namespace {

constexpr int64_t kHidden = 2048, kExperts = 128, kTopK = 8, kHeads = 32, kKvHeads = 4, kHeadDim = 128;
constexpr int64_t kUsageColumns = 4;
constexpr float kEpsilon = 1e-6f;
constexpr double kSumError = 1e-5, kRoundedError = 5e-3, kNoError = 0.0;  // FP32 sums, BF16 outputs, integers and copies

// Buffers of one layer in the order in which its kernels fill them.
struct LayerOperands {
  LayerOperands(int64_t num_tokens, Stream& stream);

  int64_t num_tokens;
  Tensor hidden, delta, norm_weight, normed_f32, normed;
  Tensor router, logits;
  Tensor bytes, step_token, skip_rows, rank_of_expert, hop_of_rank;  // zeros: nothing is skipped on one rank
  Tensor expert_ids, routed_ids, expert_weights, usage, pair_counts;
  Tensor num_rows, row_offsets, row_index, row_of_pair, sorted, expert_output;
  Tensor qkv, head_norm, cos_sin, slots, q, k_cache, v_cache;
};

LayerOperands::LayerOperands(int64_t tokens, Stream& stream) : num_tokens(tokens) {
  const auto empty = [&](const Shape& shape, DType dtype) { return Tensor::empty(shape, dtype, stream.device()); };
  const auto zeros = [&](const Shape& shape, DType dtype) { return Tensor::zeros(shape, dtype, stream.device()); };
  hidden = random_on_gpu({tokens, kHidden}, DType::kF32, 1, stream);
  delta = random_on_gpu({tokens, kHidden}, DType::kF32, 2, stream);
  norm_weight = random_on_gpu({kHidden}, DType::kF32, 3, stream);
  normed_f32 = random_on_gpu({tokens, kHidden}, DType::kF32, 4, stream);
  normed = random_on_gpu({tokens, kHidden}, DType::kBF16, 5, stream);
  router = random_on_gpu({kExperts, kHidden}, DType::kF32, 6, stream);
  logits = random_on_gpu({tokens, kExperts}, DType::kF32, 7, stream);
  bytes = zeros({tokens}, DType::kU8);
  step_token = zeros({tokens}, DType::kI32);
  skip_rows = zeros({kNumTokenClasses * kNumTokenPhases, static_cast<int64_t>(sizeof(SkipRow))}, DType::kU8);
  rank_of_expert = zeros({kExperts}, DType::kI32);
  hop_of_rank = zeros({1}, DType::kI32);
  expert_ids = empty({tokens, kTopK}, DType::kI32);
  routed_ids = empty({tokens, kTopK}, DType::kI32);
  expert_weights = empty({tokens, kTopK}, DType::kF32);
  usage = zeros({tokens, kUsageColumns}, DType::kI32);
  pair_counts = zeros({kNumTokenPhases, kNumTokenClasses, 2}, DType::kI64);
  num_rows = integers_on_gpu({static_cast<int32_t>(tokens)}, {1}, stream);
  row_offsets = empty({kExperts + 1}, DType::kI32);
  row_index = empty({tokens * kTopK}, DType::kI32);
  row_of_pair = empty({tokens, kTopK}, DType::kI32);
  sorted = empty({tokens * kTopK, kHidden}, DType::kBF16);
  expert_output = random_on_gpu({tokens * kTopK, kHidden}, DType::kF32, 8, stream);
  qkv = random_on_gpu({tokens, (kHeads + 2 * kKvHeads) * kHeadDim}, DType::kF32, 9, stream);
  head_norm = random_on_gpu({kHeadDim}, DType::kF32, 10, stream);
  cos_sin = random_on_gpu({tokens, kHeadDim}, DType::kF32, 11, stream);
  std::vector<int32_t> rows(static_cast<size_t>(tokens));
  std::iota(rows.begin(), rows.end(), 0);
  slots = integers_on_gpu(rows, {tokens}, stream);
  q = empty({tokens, kHeads, kHeadDim}, DType::kBF16);
  k_cache = empty({tokens, kKvHeads, kHeadDim}, DType::kBF16);
  v_cache = empty(k_cache.shape(), DType::kBF16);
}

void route(LayerOperands& o, Stream& stream) {
  const Tensor no_scale;
  route_tokens({.logits = o.logits,
                .token_class = o.bytes,
                .level = o.bytes,
                .phase = o.bytes,
                .step_token = o.step_token,
                .skip_rows = o.skip_rows,
                .expert_scale = no_scale,
                .rank_of_expert = o.rank_of_expert,
                .hop_of_rank = o.hop_of_rank},
               {o.expert_ids, o.routed_ids, o.expert_weights, o.usage, o.pair_counts}, stream);
}

ArrivedRows arrived(const LayerOperands& o) { return {o.normed, o.expert_ids, o.num_rows, o.num_tokens}; }

void sort_rows(LayerOperands& o, Stream& stream) {
  sort_and_gather(arrived(o), {o.row_offsets, o.row_index, o.row_of_pair}, o.sorted, stream);
}

void add_pairs(LayerOperands& o, Stream& stream) {
  const ArrivedRows rows = arrived(o);
  NormedRows out{{}, o.normed};
  add_pair_sums_rms_norm({rows, o.row_of_pair, o.expert_weights, o.expert_output}, {o.norm_weight, kEpsilon}, o.hidden, out,
                         stream);
}

void add_delta(LayerOperands& o, Stream& stream) {
  NormedRows out{o.normed_f32, o.normed};
  add_rms_norm(o.delta, {o.norm_weight, kEpsilon}, o.hidden, out, stream);
}

void split(LayerOperands& o, Stream& stream) {
  split_heads({o.qkv, {}, o.head_norm, o.head_norm, kEpsilon, o.cos_sin, o.slots}, {o.q, o.k_cache, o.v_cache}, stream);
}

double router_error(LayerOperands& o, Stream& stream) {
  Tensor logits = Tensor::empty(o.logits.shape(), DType::kF32, stream.device());
  router_logits(o.normed_f32, o.router, logits, stream);
  const int64_t last = o.num_tokens - 1;
  const Tensor actual = to_host(logits, stream), x = to_host(o.normed_f32, stream), w = to_host(o.router, stream);
  RelativeError error;
  for (const int64_t token : {int64_t{0}, last}) {
    for (int64_t e = 0; e < kExperts; ++e) {
      error.add(double{actual.row<float>(token)[e]},
                std::inner_product(x.row<float>(token), x.row<float>(token) + kHidden, w.row<float>(e), 0.0));
    }
  }
  return error.value();
}

// Share of the pairs that are not those of the largest logits in their order.
double routing_error(LayerOperands& o, Stream& stream) {
  route(o, stream);
  const Tensor ids = to_host(o.expert_ids, stream), logits = to_host(o.logits, stream);
  int64_t num_wrong = 0;
  std::vector<int32_t> order(kExperts);
  for (int64_t token = 0; token < o.num_tokens; ++token) {
    const float* values = logits.row<float>(token);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return values[a] > values[b]; });
    for (size_t j = 0; j < kTopK; ++j) num_wrong += ids.row<int32_t>(token)[j] == order[j] ? 0 : 1;
  }
  return static_cast<double>(num_wrong) / static_cast<double>(o.num_tokens * kTopK);
}

// Share of the pairs that are not where their expert's rows are, or whose row is not their token's.
double sort_error(LayerOperands& o, Stream& stream) {
  route(o, stream);
  sort_rows(o, stream);
  const Tensor ids = to_host(o.expert_ids, stream), offsets = to_host(o.row_offsets, stream);
  const Tensor places = to_host(o.row_of_pair, stream), rows = to_host(o.normed, stream), sorted = to_host(o.sorted, stream);
  int64_t num_wrong = 0;
  for (int64_t pair = 0; pair < o.num_tokens * kTopK; ++pair) {
    const int32_t expert = ids.data<int32_t>()[pair], place = places.data<int32_t>()[pair];
    const bool is_inside = offsets.data<int32_t>()[expert] <= place && place < offsets.data<int32_t>()[expert + 1];
    const auto same = [](bf16 a, bf16 b) { return a.bits == b.bits; };
    const bf16* row = rows.row<bf16>(pair / kTopK);
    num_wrong += is_inside && std::equal(row, row + kHidden, sorted.row<bf16>(place), same) ? 0 : 1;
  }
  return static_cast<double>(num_wrong) / static_cast<double>(o.num_tokens * kTopK);
}

// The norm of the last row of `expected`, against the kernel's BF16.
double norm_error(const LayerOperands& o, std::vector<double> expected, Stream& stream) {
  const Tensor weight = to_host(o.norm_weight, stream), actual = to_host(o.normed, stream);
  const double squares = std::inner_product(expected.begin(), expected.end(), expected.begin(), 0.0);
  const double factor = 1.0 / std::sqrt(squares / kHidden + double{kEpsilon});
  const std::vector<float> row = row_values(actual, o.num_tokens - 1);
  RelativeError error;
  for (size_t i = 0; i < row.size(); ++i) error.add(double{row[i]}, expected[i] * factor * double{weight.data<float>()[i]});
  return error.value();
}

std::vector<double> last_row(const Tensor& gpu, Stream& stream) {
  const std::vector<float> row = row_values(to_host(gpu.slice(gpu.dim(0) - 1, gpu.dim(0)), stream), 0);
  return {row.begin(), row.end()};
}

double sums_error(LayerOperands& o, Stream& stream) {
  route(o, stream);
  sort_rows(o, stream);
  std::vector<double> expected = last_row(o.hidden, stream);
  const Tensor places = to_host(o.row_of_pair, stream), weights = to_host(o.expert_weights, stream);
  for (int64_t j = 0; j < kTopK; ++j) {
    const int64_t place = places.row<int32_t>(o.num_tokens - 1)[j];
    const std::vector<double> term = last_row(o.expert_output.slice(place, place + 1), stream);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += double{weights.row<float>(o.num_tokens - 1)[j]} * term[i];
  }
  add_pairs(o, stream);
  return norm_error(o, expected, stream);
}

double add_norm_error(LayerOperands& o, Stream& stream) {
  std::vector<double> expected = last_row(o.hidden, stream);
  const std::vector<double> delta = last_row(o.delta, stream);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += delta[i];
  add_delta(o, stream);
  return norm_error(o, expected, stream);
}

// Values of the last row, which are only rounded.
double heads_error(LayerOperands& o, Stream& stream) {
  split(o, stream);
  const std::vector<double> qkv = last_row(o.qkv, stream), values = last_row(o.v_cache, stream);
  RelativeError error;
  for (size_t i = 0; i < values.size(); ++i) error.add(values[i], qkv[qkv.size() - values.size() + i]);
  return error.value();
}

// The kernels of a layer in the order of their data: what one leaves, the next may read.
std::vector<GpuKernelCase> row_cases(LayerOperands& o, Stream& stream) {
  const auto tokens = static_cast<double>(o.num_tokens);
  const double row = 4.0 * kHidden, rounded = 2.0 * kHidden, pairs = tokens * kTopK;  // bytes of rows; number of pairs
  const double qkv = 4.0 * (kHeads + 2 * kKvHeads) * kHeadDim;
  const std::string num_rows = std::to_string(o.num_tokens);
  std::vector<GpuKernelCase> cases;
  const auto add = [&](const char* name, double num_bytes, double allowed_error) -> GpuKernelCase& {
    GpuKernelCase& added = cases.emplace_back();
    added.name = std::string(name) + ' ' + num_rows + " rows";
    added.num_bytes = num_bytes;
    added.allowed_error = allowed_error;
    return added;
  };
  const auto set = [&](GpuKernelCase& added, double (*measure_error)(LayerOperands&, Stream&), auto run) {
    added.measure_error = [&o, &stream, measure_error] { return measure_error(o, stream); };
    added.run = [&o, &stream, run](int) { run(o, stream); };
  };
  GpuKernelCase& router = add("router", tokens * row + 4.0 * kExperts * kHidden + tokens * 4.0 * kExperts, kSumError);
  router.operations = 2.0 * tokens * kExperts * kHidden;
  set(router, router_error, [](LayerOperands& l, Stream& s) { router_logits(l.normed_f32, l.router, l.logits, s); });
  set(add("routing", tokens * 4.0 * kExperts + pairs * 12.0, kNoError), routing_error, route);
  set(add("sort and gather", tokens * rounded + pairs * rounded, kNoError), sort_error, sort_rows);
  set(add("pair sums and norm", pairs * row + 2.0 * tokens * row + tokens * rounded, kRoundedError), sums_error, add_pairs);
  set(add("sum and norm", 4.0 * tokens * row + tokens * rounded, kRoundedError), add_norm_error, add_delta);
  set(add("heads", tokens * (1.5 * qkv + 4.0 * kHeadDim), kRoundedError), heads_error, split);
  return cases;
}

}  // namespace

void visit_row_cases(const CaseFilter& filter, const CaseVisitor& visit, Stream& stream) {
  for (const int64_t num_tokens : {1, 32, 128, 8192}) {
    LayerOperands operands(num_tokens, stream);
    for (const GpuKernelCase& row_case : row_cases(operands, stream)) {
      if (filter(row_case.name)) visit(row_case);
    }
  }
}

}  // namespace skipper::cuda
