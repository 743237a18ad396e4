#include "bench/gpu_attention_cases.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "bench/gpu_tensors.h"
#include "kernels/cuda/paged_attention.h"

namespace skipper::cuda {
namespace {

constexpr int64_t kHeads = 32, kKvHeads = 4, kHeadDim = 128, kBlockSize = 16;
constexpr float kScale = 0.08838835f;  // 1 / √128
constexpr double kAllowedError = 1e-2;  // softmax weights and outputs are rounded to BF16

// Sequences of equal length, of whose positions the last `num_queries` attend.
struct AttentionShape {
  int64_t num_sequences = 0;
  int64_t num_queries = 0;
  int64_t num_positions = 0;

  int64_t num_blocks() const { return (num_positions + kBlockSize - 1) / kBlockSize; }
  double num_pairs() const {  // of a query and a key, of one head
    const auto first = static_cast<double>(num_positions - num_queries + 1), last = static_cast<double>(num_positions);
    return static_cast<double>(num_sequences * num_queries) * 0.5 * (first + last);
  }
};

struct AttentionOperands {
  AttentionOperands(const AttentionShape& shape, Stream& stream);

  AttentionShape shape;
  Tensor q, k, v, out;
  Tensor query_offsets, first_position, block_tables;
  AttentionScratch scratch;
};

// Blocks of a sequence lie one after the other.
AttentionOperands::AttentionOperands(const AttentionShape& s, Stream& stream)
    : shape(s), scratch(s.num_sequences, s.num_positions, kHeads, kHeadDim, stream.device()) {
  const int64_t num_slots = s.num_sequences * s.num_blocks() * kBlockSize;
  q = random_on_gpu({s.num_sequences * s.num_queries, kHeads, kHeadDim}, DType::kBF16, 1, stream);
  k = random_on_gpu({num_slots, kKvHeads, kHeadDim}, DType::kBF16, 2, stream);
  v = random_on_gpu(k.shape(), DType::kBF16, 3, stream);
  out = Tensor::empty(q.shape(), DType::kBF16, stream.device());
  const std::vector<int32_t> first(static_cast<size_t>(s.num_sequences), static_cast<int32_t>(s.num_positions - s.num_queries));
  std::vector<int32_t> offsets;
  for (int64_t i = 0; i <= s.num_sequences; ++i) offsets.push_back(static_cast<int32_t>(i * s.num_queries));
  std::vector<int32_t> blocks(static_cast<size_t>(s.num_sequences * s.num_blocks()));
  std::iota(blocks.begin(), blocks.end(), 0);
  query_offsets = integers_on_gpu(offsets, {s.num_sequences + 1}, stream);
  first_position = integers_on_gpu(first, {s.num_sequences}, stream);
  block_tables = integers_on_gpu(blocks, {s.num_sequences, s.num_blocks()}, stream);
}

void attend(AttentionOperands& o, Stream& stream) {
  paged_attention({.q = o.q,
                   .k_cache = o.k,
                   .v_cache = o.v,
                   .query_offsets = o.query_offsets,
                   .first_position = o.first_position,
                   .block_tables = o.block_tables,
                   .block_size = kBlockSize,
                   .scale = kScale,
                   .max_queries = o.shape.num_queries,
                   .max_positions = o.shape.num_positions},
                  o.scratch, o.out, stream);
}

struct HostOperands {
  Tensor q, k, v, out;
};

const bf16* head_at(const Tensor& rows, int64_t row, int64_t head) { return rows.row<bf16>(row) + head * kHeadDim; }

double dot(const bf16* a, const bf16* b) {
  double sum = 0.0;
  for (int64_t i = 0; i < kHeadDim; ++i) sum += double{static_cast<float>(a[i])} * double{static_cast<float>(b[i])};
  return sum;
}

// One head of one query, by the definition in double precision.
void compare_head(const AttentionShape& shape, const HostOperands& host, int64_t row, int64_t head, RelativeError& error) {
  const int64_t first_slot = row / shape.num_queries * shape.num_blocks() * kBlockSize;
  const int64_t num_keys = shape.num_positions - shape.num_queries + row % shape.num_queries + 1;
  const int64_t kv_head = head / (kHeads / kKvHeads);
  std::vector<double> weights;
  for (int64_t key = 0; key < num_keys; ++key) {
    weights.push_back(dot(head_at(host.q, row, head), head_at(host.k, first_slot + key, kv_head)) * double{kScale});
  }
  const double largest = *std::ranges::max_element(weights);
  double sum = 0.0;
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  for (int64_t i = 0; i < kHeadDim; ++i) {
    double expected = 0.0;
    for (int64_t key = 0; key < num_keys; ++key) {
      expected += weights[static_cast<size_t>(key)] * double{static_cast<float>(head_at(host.v, first_slot + key, kv_head)[i])};
    }
    error.add(double{static_cast<float>(head_at(host.out, row, head)[i])}, expected / sum);
  }
}

// A few queries and heads, the very last among them.
double attention_error(AttentionOperands& operands, Stream& stream) {
  attend(operands, stream);
  const HostOperands host{to_host(operands.q, stream), to_host(operands.k, stream), to_host(operands.v, stream),
                          to_host(operands.out, stream)};
  RelativeError error;
  const int64_t last = operands.q.dim(0) - 1;
  for (const int64_t row : {int64_t{0}, last / 3, last / 2, last}) {
    for (const int64_t head : {int64_t{0}, int64_t{13}, kHeads - 1}) compare_head(operands.shape, host, row, head, error);
  }
  return error.value();
}

}  // namespace

void visit_attention_cases(const CaseFilter& filter, const CaseVisitor& visit, Stream& stream) {
  const AttentionShape shapes[] = {{1, 2048, 2048}, {4, 2048, 2048}, {1, 8192, 8192}, {1, 1, 128},  {8, 1, 128},
                                   {32, 1, 128},    {128, 1, 128},   {1, 1, 4096},    {32, 1, 4096}};
  for (const AttentionShape& shape : shapes) {
    const std::string name = "attention " + std::to_string(shape.num_sequences) + " x " + std::to_string(shape.num_queries) +
                             " queries at " + std::to_string(shape.num_positions);
    if (!filter(name)) continue;
    AttentionOperands operands(shape, stream);
    GpuKernelCase attention;
    attention.name = name;
    attention.operations = 4.0 * shape.num_pairs() * kHeads * kHeadDim;
    attention.num_bytes = 2.0 * static_cast<double>(shape.num_sequences * shape.num_positions * kKvHeads * kHeadDim) * 2.0;
    attention.allowed_error = kAllowedError;
    attention.measure_error = [&] { return attention_error(operands, stream); };
    attention.run = [&](int) { attend(operands, stream); };
    visit(attention);
  }
}

}  // namespace skipper::cuda
