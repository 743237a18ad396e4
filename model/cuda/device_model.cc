#include "model/cuda/device_model.h"

#include <glog/logging.h>

#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "model/cuda/decoder.h"
#include "model/cuda/decoder_weights.h"
#include "model/cuda/vision_encoder.h"
#include "tensor/gpu_properties.h"

namespace skipper::cuda {
namespace {

void check_format(const WeightFormat& format) {
  if (format.kind != WeightKind::kF32) device_matrix_bytes(format, {1, 1});
}

class DeviceModel final : public ModelBackend {
 public:
  DeviceModel(const ModelParts& parts, ModelWeights weights, const ParallelContext& parallel, ThreadPool& workers)
      : loading_(parallel.device) {
    require_rules_of_gpu(parallel.levels);
    if (weights.vision) vision_.emplace(*parts.config.vision, *weights.vision, loading_);
    weights.vision.reset();
    DecoderWeights uploaded = upload_decoder_weights(parts.config, weights, {parts.store, parts.tiers}, workers, loading_);
    const StagingUse staging = parts.tiers.are_staged ? StagingUse::kPrompts : StagingUse::kNone;
    gpu_bytes_ = uploaded.num_bytes();
    if (parts.tiers.are_staged) gpu_bytes_ += ExpertStaging::slot_bytes(uploaded.most_host_expert_bytes());
    pinned_bytes_ = uploaded.host_expert_bytes();
    const bool is_alone = parallel.data.size() == 1;
    CHECK(is_alone || parallel.gpu_data != nullptr) << "GPUs of several ranks exchange rows over NCCL";
    const DecoderContext context{.placement = parts.placement,
                                 .topology = parallel.topology,
                                 .levels = parallel.levels,
                                 .pairs = parts.pairs,
                                 .traffic = parts.traffic,
                                 .agreement = is_alone ? nullptr : &parallel.data,
                                 .data = is_alone ? nullptr : parallel.gpu_data,
                                 .workers = workers};
    const DecoderConfig config{parts.limits, parallel.formats, parallel.graphs, staging, parallel.node_relay};
    decoder_.emplace(parts.config, std::move(uploaded), config, context, loading_);
  }

  ImageFeatures encode_images(std::span<const ImagePatches> images, Stream& stream) override {
    if (!vision_) throw InvalidRequest("this model reads no images; remove them or serve a vision model", "messages");
    return vision_->encode(images, stream);
  }
  StepOutput forward(const BatchInput& batch, KvCache& cache, Stream& stream) override {
    return decoder_->forward(batch, cache, stream);
  }
  Tensor token_usage() const override { return decoder_->token_usage(); }
  std::chrono::nanoseconds expert_time() const override { return decoder_->expert_time(); }
  int64_t bytes_per_sent_row() const override { return decoder_->bytes_per_sent_row(); }
  DispatchDemand dispatch_demand() const override { return decoder_->dispatch_demand(); }
  void set_step(int64_t step) override { decoder_->set_step(step); }
  void set_routing_observer(const RoutingObserver& observer) override { decoder_->set_routing_observer(observer); }
  std::vector<int64_t> expert_loads() override { return decoder_->expert_loads(loading_); }
  void set_activation_observer(const ActivationObserver& observer) override {
    if (observer) {
      throw InvalidRequest("the inputs of matrices are not recorded on a GPU; run with --device cpu", "device");
    }
  }
  void set_expert_output_observer(const ExpertOutputObserver& observer) override {
    if (observer) {
      throw InvalidRequest("the outputs of experts are not compared on a GPU; run with --device cpu", "device");
    }
  }
  size_t gpu_bytes() const override { return gpu_bytes_; }
  size_t pinned_bytes() const override { return pinned_bytes_; }

 private:
  Stream loading_;
  std::optional<VisionEncoder> vision_;
  std::optional<Decoder> decoder_;
  size_t gpu_bytes_ = 0;
  size_t pinned_bytes_ = 0;
};

// Of the decoder's weights that every rank has; the vision tower comes on top.
size_t dense_bytes(const ModelConfig& config, const WeightConfig& formats) {
  WeightFormat format;
  if (config.quantization && config.quantization->dense) format = *config.quantization->dense;
  if (formats.dense) format = *formats.dense;
  if (format.kind == WeightKind::kF32) format = {};
  const AttentionConfig& attention = config.attention;
  const int64_t hidden = config.hidden_size, query_size = attention.num_heads * attention.kv.key_dim;
  const int64_t qkv_size = query_size + 2 * attention.kv.kv_heads * attention.kv.key_dim;
  const int64_t width = config.dense_intermediate_size;
  const size_t attention_bytes =
      device_matrix_bytes(format, {qkv_size, hidden}) + device_matrix_bytes(format, {hidden, query_size});
  size_t total = device_matrix_bytes(format, {config.vocab_size, hidden}) +
                 static_cast<size_t>(config.vocab_size * hidden) * sizeof(bf16);
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
    total += attention_bytes;
    total += config.is_moe_layer(layer)
                 ? static_cast<size_t>(config.moe.num_experts * hidden) * sizeof(float)
                 : device_matrix_bytes(format, {2 * width, hidden}) + device_matrix_bytes(format, {hidden, width});
  }
  return total;
}

std::string megabytes(size_t num_bytes) { return std::to_string(num_bytes / 1'000'000) + " MB"; }

}  // namespace

void check_device_formats(const ModelConfig& config, const WeightConfig& formats, const ExpertStore& store) {
  if (formats.dense) check_format(*formats.dense);
  if (config.quantization && config.quantization->dense) check_format(*config.quantization->dense);
  for (int layer = 0; layer < store.num_layers(); ++layer) {
    for (const ExpertSlot& slot : store.slots(layer)) check_format(slot.format);
  }
}

void check_device_memory(const ModelConfig& config, const WeightConfig& formats, const ExpertTierBytes& experts, Device device) {
  const size_t free_bytes = gpu_properties(device.index).free_bytes;
  const size_t dense = dense_bytes(config, formats), needed = dense + experts.device + experts.staging;
  if (needed <= free_bytes) return;
  const std::string what = "GPU " + std::to_string(device.index) + " has " + megabytes(free_bytes) +
                           " free, but the weights take " + megabytes(needed) + " of it: " + megabytes(dense) + " dense and " +
                           megabytes(experts.device + experts.staging) + " experts; ";
  if (dense >= free_bytes) throw DeviceError(what + "use a smaller format for dense weights or a larger GPU");
  throw DeviceError(what + "set gpu.device_expert_mb to less than " + std::to_string((free_bytes - dense) / 1'000'000) +
                    " or give a plan, so that the rest stays in host memory, or use more GPUs");
}

std::unique_ptr<ModelBackend> make_device_model(const ModelParts& parts, ModelWeights weights, const ParallelContext& parallel,
                                                ThreadPool& workers) {
  return std::make_unique<DeviceModel>(parts, std::move(weights), parallel, workers);
}

}  // namespace skipper::cuda
