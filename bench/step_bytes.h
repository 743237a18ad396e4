// The bytes that a step has to read from memory, by the formats in which the model's weights are loaded.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model_config.h"
#include "model/quantized_checkpoint.h"
#include "model/weight_config.h"

namespace skipper {

class StepBytes {
 public:
  // `formats` are those of the loaded weights; dense weights without one count as BF16.
  StepBytes(const ModelConfig& model, const QuantizedFormats& formats);

  // Attention projections, routers, dense feed-forward layers and head: what a rank with tokens reads once a step.
  double dense() const { return dense_; }
  // [MoE layers, experts], row by row: of one expert, read once a step however many tokens it has.
  const std::vector<double>& experts() const { return experts_; }
  // One row of the embedding table.
  double embedding_row() const;
  // K and V of one token, in all layers.
  double cached_token() const;

 private:
  double dense_layer(int64_t layer, const WeightFormat& format) const;

  const ModelConfig& model_;
  double dense_ = 0.0;
  std::vector<double> experts_;
};

// The formats that weights are loaded in: those asked for, else the checkpoint's own, else BF16.
QuantizedFormats formats_in_memory(const ModelConfig& model, const WeightConfig& asked);

}  // namespace skipper
