// The decoder's step written out kernel by kernel, so that each kind of work can be timed and the routing of every layer be seen.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>

#include "expert_parallel/cuda/device_moe_layer.h"
#include "kernels/cuda/paged_attention.h"
#include "model/batch_input.h"
#include "model/cuda/decoder_weights.h"
#include "model/cuda/step_inputs.h"
#include "model/kv_cache.h"
#include "model/model_config.h"
#include "model/step_limits.h"

namespace skipper::cuda {

enum class StepPart : uint8_t { kAttention, kDense, kRouting, kExperts, kSumsAndNorms };
inline constexpr size_t kNumStepParts = 5;
inline constexpr std::array<std::string_view, kNumStepParts> kStepPartNames = {"attention", "dense products", "router to sort",
                                                                               "expert products", "sums and norms"};

// What is told of a step while its kernels are queued.
struct StepObserver {
  // After the kernels of one part of a layer.
  std::function<void(StepPart)> on_part;
  // Experts that run, [T, k] i32 on the GPU, of each MoE layer.
  std::function<void(int64_t layer, const Tensor& expert_ids)> on_routing;
};

// One rank, no graphs, MoE layers only, no images. Gives the bits of model/cuda/decoder.h: the benchmark compares them, so what
// is timed here is what runs there. Engine thread only.
class WrittenOutDecoder {
 public:
  // `weights` outlives it.
  WrittenOutDecoder(const ModelConfig& model, const DecoderWeights& weights, const StepLimits& limits, Stream& stream);

  // Queues a step. Returns the logits [L, V] f32 on the GPU.
  Tensor step(const BatchInput& batch, const LevelTable& levels, KvCache& cache, Stream& stream,
              const StepObserver& observer = {});

 private:
  struct Step {
    const StepShape& shape;
    const StepTensors& inputs;
    KvCache& cache;
    Stream& stream;
    const StepObserver& observer;
  };
  // As in the decoder: all rows, or in the last layer those whose logits are read.
  struct Rows {
    Tensor hidden;
    Tensor attended;  // [n, heads · D] bf16
    NormedRows normed;
    Tensor delta;
    const RowTensors& policies;
  };

  void embed(const Step& step);
  Rows token_rows(const Step& step);
  Rows wanted_rows(const Step& step, const Rows& tokens);
  void attend(const Step& step, int64_t layer, const Rows& rows);
  void feed_forward(const Step& step, int64_t layer, Rows& rows);
  void route(const Step& step, int64_t layer, const Rows& rows);
  void run_experts(const Step& step, int64_t layer, Rows& rows);
  static void end_part(const Step& step, StepPart part);
  NormWeights norm(const Tensor& weight) const { return {weight, model_.rms_norm_epsilon}; }
  NormWeights norm_after(int64_t layer) const;

  const ModelConfig& model_;
  const DecoderWeights& weights_;
  DeviceSkipTable skip_table_;
  DeviceTallies tallies_;
  DeviceMoeBuffers moe_;
  AttentionScratch scratch_;
  StepInputs inputs_;
  Tensor hidden_, normed_f32_, normed_, cos_sin_, qkv_, q_, attended_, delta_;
  Tensor wanted_hidden_, wanted_attended_, logits_;
  Tensor rotary_axis_, rotary_frequency_;
  Tensor rank_of_expert_, hop_of_rank_;  // zeros: one rank
};

}  // namespace skipper::cuda
