#include "bench/step_bytes.h"

#include "kernels/packed_matrix.h"

namespace skipper {
namespace {

constexpr double kBf16Bytes = 2.0;

double matrix_bytes(const WeightFormat& format, int64_t num_rows, int64_t num_columns) {
  return static_cast<double>(packed_bytes(format, {num_rows, num_columns}));
}

double expert_bytes(const WeightFormat& format, const ModelConfig& model) {
  const PackedShape gate_up = gate_up_shape(model.moe.intermediate_size, model.hidden_size);
  return static_cast<double>(packed_bytes(format, gate_up)) +
         matrix_bytes(format, model.hidden_size, model.moe.intermediate_size);
}

}  // namespace

StepBytes::StepBytes(const ModelConfig& model, const QuantizedFormats& formats) : model_(model) {
  const WeightFormat dense_format = formats.dense.value_or(WeightFormat{});
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
    dense_ += dense_layer(layer, dense_format);
    if (!model.is_moe_layer(layer)) continue;
    for (int64_t expert = 0; expert < model.moe.num_experts; ++expert) {
      experts_.push_back(expert_bytes(formats.of_expert(layer, expert), model));
    }
  }
  dense_ += matrix_bytes(dense_format, model.vocab_size, model.hidden_size);
}

double StepBytes::dense_layer(int64_t layer, const WeightFormat& format) const {
  const int64_t hidden = model_.hidden_size;
  const int64_t heads = model_.attention.num_heads;
  const KvLayout& kv = model_.attention.kv;
  double bytes = matrix_bytes(format, heads * kv.key_dim, hidden) + matrix_bytes(format, hidden, heads * kv.value_dim) +
                 matrix_bytes(format, kv.kv_heads * kv.key_dim, hidden) +
                 matrix_bytes(format, kv.kv_heads * kv.value_dim, hidden);
  if (model_.is_moe_layer(layer)) return bytes + kBf16Bytes * static_cast<double>(model_.moe.num_experts * hidden);
  bytes += 2.0 * matrix_bytes(format, model_.dense_intermediate_size, hidden);
  return bytes + matrix_bytes(format, hidden, model_.dense_intermediate_size);
}

double StepBytes::embedding_row() const { return kBf16Bytes * static_cast<double>(model_.hidden_size); }

double StepBytes::cached_token() const {
  return kBf16Bytes * static_cast<double>(model_.num_layers() * model_.attention.kv.num_elements());
}

QuantizedFormats formats_in_memory(const ModelConfig& model, const WeightConfig& asked) {
  QuantizedFormats formats = model.quantization.value_or(QuantizedFormats{});
  if (asked.experts) formats.experts = *asked.experts;
  if (asked.dense) formats.dense = asked.dense;
  return formats;
}

}  // namespace skipper
