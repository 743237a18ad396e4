// Grouped-query attention of one decoder layer with normalised queries and keys, over a paged KV cache.
#pragma once

#include <span>

#include "kernels/attention_received.h"
#include "model/activations.h"
#include "model/kv_cache.h"
#include "model/model_config.h"
#include "model/model_weights.h"
#include "tensor/device_runtime.h"

namespace skipper {

// Queries of one step see the blocks of their sequences. Shared by all layers of a step.
struct KvView {
  const Tensor& slots;         // [T] i32, where each token's K and V go
  const Tensor& block_tables;  // [S, max_blocks_per_sequence] i32
};

// What attend() had, and left.
struct StepAttention {
  const KvView& view;
  const PagedKv& cache;
  const Activations& activations;
  Stream& stream;
};

// Keys and values are written apart from reading them: in the last layer all tokens write, but only few attend.
class AttentionLayer {
 public:
  AttentionLayer(const ModelConfig& config, AttentionWeights weights);

  // Stores K and V of rows.normed.
  void write_kv(const DecoderRows& rows, const KvView& view, PagedKv& cache, Activations& activations,
                Stream& stream) const;
  // activations.sublayer_output = attention(rows.normed). The rows' own K and V are in the cache.
  void attend(const DecoderRows& rows, const KvView& view, const PagedKv& cache, Activations& activations,
              Stream& stream) const;
  // After attend(): the attention that some of its rows get from those after them.
  void received(const DecoderRows& rows, const RowRange& range, const StepAttention& step, std::span<float> received) const;

 private:
  AttentionConfig config_;
  float norm_epsilon_;
  AttentionWeights weights_;
};

}  // namespace skipper
