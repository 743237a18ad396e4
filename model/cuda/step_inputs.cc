#include "model/cuda/step_inputs.h"

#include <glog/logging.h>

#include <algorithm>

#include "expert_parallel/token_policies.h"

namespace skipper::cuda {
namespace {

constexpr size_t kAlignment = 64;
constexpr uint8_t kPaddingClass = 255;

// Hands out memory piece by piece; also only counts, over none.
class Pieces {
 public:
  Pieces(std::byte* memory, Device device) : memory_(memory), device_(device) {}

  Tensor take(const Shape& shape, DType dtype) {
    // An address even where nothing is: tensors without memory count as undefined.
    Tensor tensor = Tensor::borrow(memory_ == nullptr ? nullptr : memory_ + num_bytes_, shape, dtype, device_);
    num_bytes_ += (tensor.num_bytes() + kAlignment) / kAlignment * kAlignment;
    return tensor;
  }
  RowTensors take_rows(int64_t count) {
    return {.token_class = take({count}, DType::kU8),
            .level = take({count}, DType::kU8),
            .phase = take({count}, DType::kU8),
            .step_token = take({count}, DType::kI32),
            .offsets = take({2}, DType::kI32)};
  }
  size_t num_bytes() const { return num_bytes_; }

 private:
  std::byte* memory_;
  Device device_;
  size_t num_bytes_ = 0;
};

// The tokens of one sequence in a step.
struct Run {
  int64_t begin = 0;
  int64_t end = 0;
  int32_t table_row = 0;
};

// The run that begins at token `begin`.
Run run_at(const BatchInput& batch, int64_t begin) {
  const int32_t* sequence = batch.sequence_index.data<int32_t>();
  Run run{begin, begin + 1, sequence[begin]};
  while (run.end < batch.num_tokens() && sequence[run.end] == run.table_row) ++run.end;
  return run;
}

// target[0, n) = source, the rest = padding.
template <typename T>
void copy_padded(const Tensor& source, Tensor target, T padding) {
  const std::span<const T> values = source.span<T>();
  std::ranges::fill(std::ranges::copy(values, target.data<T>()).out, target.data<T>() + target.num_elements(), padding);
}

// target[i] = source[index[i]], the rest = padding.
template <typename T>
void gather_padded(const Tensor& source, const Tensor& index, Tensor target, T padding) {
  T* out = target.data<T>();
  for (const int32_t row : index.span<int32_t>()) *out++ = source.data<T>()[row];
  std::ranges::fill(out, target.data<T>() + target.num_elements(), padding);
}

void write_offsets(Tensor offsets, int64_t num_rows) {
  offsets.data<int32_t>()[0] = 0;
  offsets.data<int32_t>()[1] = static_cast<int32_t>(num_rows);
}

void write_rows(const BatchInput& batch, const RowTensors& host) {
  copy_padded<uint8_t>(batch.token_class, host.token_class, kPaddingClass);
  copy_padded<uint8_t>(batch.level, host.level, 0);
  copy_padded<uint8_t>(batch.phase, host.phase, 0);
  Tensor step_token = host.step_token;
  for (int64_t t = 0; t < step_token.dim(0); ++t) step_token.data<int32_t>()[t] = static_cast<int32_t>(t);
  write_offsets(host.offsets, step_token.dim(0));
}

void write_logit_rows(const BatchInput& batch, const RowTensors& host) {
  gather_padded<uint8_t>(batch.token_class, batch.logit_rows, host.token_class, kPaddingClass);
  gather_padded<uint8_t>(batch.level, batch.logit_rows, host.level, 0);
  gather_padded<uint8_t>(batch.phase, batch.logit_rows, host.phase, 0);
  copy_padded<int32_t>(batch.logit_rows, host.step_token, 0);
  write_offsets(host.offsets, host.step_token.dim(0));
}

// The blocks of sequence `s` of the step, cut or padded to its columns.
void write_blocks(const Tensor& blocks, int64_t s, Tensor tables) {
  const int64_t num_columns = tables.dim(1);
  int32_t* row = tables.row<int32_t>(s);
  std::fill(std::copy_n(blocks.data<int32_t>(), std::min(num_columns, blocks.dim(0)), row), row + num_columns, 0);
}

void write_sequences(const BatchInput& batch, const StepTensors& host) {
  Tensor offsets = host.query_offsets, first_position = host.first_position, tables = host.block_tables;
  int64_t s = 0;
  for (int64_t begin = 0; begin < batch.num_tokens(); ++s) {
    const Run run = run_at(batch, begin);
    offsets.data<int32_t>()[s] = static_cast<int32_t>(begin);
    first_position.data<int32_t>()[s] = batch.positions.data<int32_t>()[begin];
    write_blocks(batch.block_tables.at(run.table_row), s, tables);
    begin = run.end;
  }
  const auto padding = [s](Tensor tensor) { return tensor.slice(s, tensor.dim(0)); };
  std::ranges::fill(padding(offsets).span<int32_t>(), static_cast<int32_t>(batch.num_tokens()));
  std::ranges::fill(padding(first_position).span<int32_t>(), 0);
  std::ranges::fill(padding(tables).span<int32_t>(), 0);
}

void write_samplings(const BatchInput& batch, Tensor host) {
  CHECK_LE(static_cast<int64_t>(batch.samplings.size()), host.dim(0));
  auto* out = reinterpret_cast<PackedTokenSampling*>(host.bytes());
  if (batch.logit_use == LogitUse::kTokens) out = std::ranges::transform(batch.samplings, out, packed).out;
  std::fill(out, reinterpret_cast<PackedTokenSampling*>(host.bytes()) + host.dim(0), PackedTokenSampling{});
}

}  // namespace

StepShape shape_of(const BatchInput& batch, int64_t block_size) {
  StepShape shape{.num_rows = batch.num_tokens(), .num_logit_rows = batch.logit_rows.num_elements()};
  for (int64_t begin = 0; begin < batch.num_tokens();) {
    const Run run = run_at(batch, begin);
    ++shape.num_sequences;
    shape.max_queries = std::max(shape.max_queries, run.end - run.begin);
    shape.max_positions = std::max(shape.max_positions, int64_t{batch.positions.data<int32_t>()[run.end - 1]} + 1);
    begin = run.end;
  }
  shape.num_blocks = (shape.max_positions + block_size - 1) / block_size;
  return shape;
}

StepLayout lay_out(const StepShape& shape, std::byte* memory, Device device) {
  Pieces pieces(memory, device);
  StepTensors tensors{.token_ids = pieces.take({shape.num_rows}, DType::kI32),
                      .rotary = pieces.take({shape.num_rows, 3}, DType::kI32),
                      .slots = pieces.take({shape.num_rows}, DType::kI32),
                      .query_offsets = pieces.take({shape.num_sequences + 1}, DType::kI32),
                      .first_position = pieces.take({shape.num_sequences}, DType::kI32),
                      .block_tables = pieces.take({shape.num_sequences, shape.num_blocks}, DType::kI32),
                      .logit_index = pieces.take({shape.num_logit_rows}, DType::kI32),
                      .samplings = pieces.take({shape.num_logit_rows, int64_t{sizeof(PackedTokenSampling)}}, DType::kU8),
                      .usage = pieces.take({shape.num_rows, kNumGpuUsageColumns}, DType::kI32),
                      .rows = pieces.take_rows(shape.num_rows),
                      .logit_rows = pieces.take_rows(shape.num_logit_rows)};
  return {std::move(tensors), pieces.num_bytes()};
}

void write_step(const BatchInput& batch, const StepTensors& host) {
  copy_padded<int32_t>(batch.token_ids, host.token_ids, -1);
  copy_padded<int32_t>(batch.rotary_positions, host.rotary, 0);
  copy_padded<int32_t>(batch.kv_slots, host.slots, -1);
  copy_padded<int32_t>(batch.logit_rows, host.logit_index, -1);
  write_samplings(batch, host.samplings);
  Tensor usage = host.usage;
  std::ranges::fill(usage.span<int32_t>(), 0);
  write_sequences(batch, host);
  write_rows(batch, host.rows);
  write_logit_rows(batch, host.logit_rows);
}

StepInputs::StepInputs(std::span<const StepShape> largest, Device device) {
  size_t num_bytes = 0;
  for (const StepShape& shape : largest) num_bytes = std::max(num_bytes, lay_out(shape, nullptr, device).num_bytes);
  host_ = PinnedTensor({static_cast<int64_t>(num_bytes)}, DType::kU8);
  device_ = Tensor::zeros({static_cast<int64_t>(num_bytes)}, DType::kU8, device);
}

StepTensors StepInputs::upload(const BatchInput& batch, const StepShape& shape, Stream& stream) {
  const StepLayout host = lay_out(shape, host_.tensor().bytes(), Device::host());
  CHECK_LE(host.num_bytes, device_.num_bytes());
  write_step(batch, host.tensors);
  copy_bytes({host_.tensor().bytes(), Device::host(), device_.bytes(), device_.device(), host.num_bytes}, stream);
  return lay_out(shape, device_.bytes(), device_.device()).tensors;
}

}  // namespace skipper::cuda
