#include "model/cuda/device_model.h"

#include <glog/logging.h>

#include <optional>
#include <utility>

#include "base/error.h"
#include "model/cuda/decoder.h"
#include "model/cuda/decoder_weights.h"
#include "model/cuda/vision_encoder.h"

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
    DecoderWeights uploaded = upload_decoder_weights(parts.config, weights, parts.store, workers, loading_);
    gpu_bytes_ = uploaded.num_bytes();
    const bool is_alone = parallel.data.size() == 1;
    CHECK(is_alone || parallel.gpu_data != nullptr) << "GPUs of several ranks exchange rows over NCCL";
    const DecoderContext context{.placement = parts.placement,
                                 .topology = parallel.topology,
                                 .levels = parallel.levels,
                                 .pairs = parts.pairs,
                                 .traffic = parts.traffic,
                                 .agreement = is_alone ? nullptr : &parallel.data,
                                 .data = is_alone ? nullptr : parallel.gpu_data};
    decoder_.emplace(parts.config, std::move(uploaded), DecoderConfig{parts.limits, parallel.formats, parallel.graphs}, context,
                     loading_);
  }

  ImageFeatures encode_images(std::span<const ImagePatches> images, Stream& stream) override {
    if (!vision_) throw InvalidRequest("this model reads no images; remove them or serve a vision model", "messages");
    return vision_->encode(images, stream);
  }
  StepOutput forward(const BatchInput& batch, KvCache& cache, Stream& stream) override {
    return decoder_->forward(batch, cache, stream);
  }
  Tensor token_usage() const override { return decoder_->token_usage(); }
  // Not measured: experts run in stream order with everything else.
  std::chrono::nanoseconds expert_time() const override { return std::chrono::nanoseconds::zero(); }
  int64_t bytes_per_sent_row() const override { return decoder_->bytes_per_sent_row(); }
  void set_step(int64_t step) override { decoder_->set_step(step); }
  void set_routing_observer(const RoutingObserver& observer) override { refuse(observer != nullptr, "routing decisions"); }
  void set_activation_observer(const ActivationObserver& observer) override {
    refuse(observer != nullptr, "the inputs of matrices");
  }
  size_t gpu_bytes() const override { return gpu_bytes_; }

 private:
  static void refuse(bool is_asked, const char* what) {
    if (!is_asked) return;
    throw InvalidRequest(std::string(what) + " are not recorded on a GPU; run with --device cpu", "device");
  }

  Stream loading_;
  std::optional<VisionEncoder> vision_;
  std::optional<Decoder> decoder_;
  size_t gpu_bytes_ = 0;
};

}  // namespace

void check_device_formats(const ModelConfig& config, const WeightConfig& formats, const ExpertStore& store) {
  if (formats.dense) check_format(*formats.dense);
  if (config.quantization && config.quantization->dense) check_format(*config.quantization->dense);
  for (int layer = 0; layer < store.num_layers(); ++layer) {
    for (const ExpertSlot& slot : store.slots(layer)) check_format(slot.format);
  }
}

std::unique_ptr<ModelBackend> make_device_model(const ModelParts& parts, ModelWeights weights, const ParallelContext& parallel,
                                                ThreadPool& workers) {
  return std::make_unique<DeviceModel>(parts, std::move(weights), parallel, workers);
}

}  // namespace skipper::cuda
