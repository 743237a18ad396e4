#include "evaluation/expert_errors.h"

#include <algorithm>

#include "experts/expert_ffn.h"

namespace skipper {
namespace {

constexpr int64_t kRowsPerPass = 1024;

// The rows of all experts of a layer, as a batch.
struct LayerRows {
  ExpertBatch batch;
  std::vector<float> gates;  // by row

  int64_t begin_of(int64_t expert) const { return batch.row_offsets.data<int32_t>()[expert]; }
};

LayerRows rows_of_layer(const ExpertSamples& samples, int moe_layer, int64_t width) {
  const int num_experts = samples.shape().num_experts;
  LayerRows layer;
  layer.batch.row_offsets = Tensor::zeros({num_experts + 1}, DType::kI32);
  int32_t* offsets = layer.batch.row_offsets.data<int32_t>();
  for (int expert = 0; expert < num_experts; ++expert) {
    const SampledRows& one = samples.at(moe_layer, expert);
    offsets[expert + 1] = offsets[expert] + static_cast<int32_t>(one.count());
    layer.gates.insert(layer.gates.end(), one.gates.begin(), one.gates.end());
  }
  const int64_t num_rows = offsets[num_experts];
  layer.batch.tokens = Tensor::empty({num_rows, width}, DType::kF32);
  layer.batch.row_index = Tensor::empty({num_rows}, DType::kI32);
  for (int expert = 0; expert < num_experts; ++expert) {
    const SampledRows& one = samples.at(moe_layer, expert);
    std::ranges::copy(one.rows, layer.batch.tokens.data<float>() + offsets[expert] * width);
  }
  for (int32_t row = 0; row < num_rows; ++row) layer.batch.row_index.data<int32_t>()[row] = row;
  return layer;
}

Tensor outputs_in(const WeightFormat& format, const WeightSource& source, int moe_layer, const LayerRows& layer, Stream& stream) {
  std::vector<ExpertSlot> slots;
  for (int32_t expert = 0; expert < source.config.moe.num_experts; ++expert) slots.push_back({expert, format});
  const ExpertStore store = load_expert_layer(source, moe_layer, slots, stream.workers());
  const ExpertFfn experts(store);
  ExpertScratch scratch(store, kRowsPerPass);
  Tensor out = Tensor::empty({layer.batch.row_index.num_elements(), source.config.hidden_size}, DType::kF32);
  experts.forward(moe_layer, layer.batch, scratch, out, stream);
  return out;
}

double squared_distance(const float* a, const float* b, int64_t size) {
  double sum = 0.0;
  for (int64_t i = 0; i < size; ++i) {
    const double difference = static_cast<double>(a[i]) - (b == nullptr ? 0.0 : static_cast<double>(b[i]));
    sum += difference * difference;
  }
  return sum;
}

// Mean over an expert's rows of g² · ‖a − b‖²; b absent counts 0.
double mean_square(const LayerRows& layer, int64_t expert, const Tensor& a, const Tensor* b) {
  const int64_t begin = layer.begin_of(expert), end = layer.begin_of(expert + 1);
  double sum = 0.0;
  for (int64_t row = begin; row < end; ++row) {
    const auto gate = static_cast<double>(layer.gates[static_cast<size_t>(row)]);
    sum += gate * gate * squared_distance(a.row<float>(row), b == nullptr ? nullptr : b->row<float>(row), a.dim(1));
  }
  return end > begin ? sum / static_cast<double>(end - begin) : 0.0;
}

}  // namespace

std::vector<ExpertErrors> measure_expert_errors(const WeightSource& source, int moe_layer, const ExpertSamples& samples,
                                                std::span<const WeightFormat> formats, Stream& stream) {
  const LayerRows layer = rows_of_layer(samples, moe_layer, source.config.hidden_size);
  const Tensor exact = outputs_in({}, source, moe_layer, layer, stream);
  std::vector<ExpertErrors> errors(static_cast<size_t>(samples.shape().num_experts));
  for (size_t expert = 0; expert < errors.size(); ++expert) {
    errors[expert].output = mean_square(layer, static_cast<int64_t>(expert), exact, nullptr);
  }
  for (const WeightFormat& format : formats) {
    const Tensor rounded = outputs_in(format, source, moe_layer, layer, stream);
    for (size_t expert = 0; expert < errors.size(); ++expert) {
      errors[expert].error.push_back(mean_square(layer, static_cast<int64_t>(expert), rounded, &exact));
    }
  }
  return errors;
}

}  // namespace skipper
