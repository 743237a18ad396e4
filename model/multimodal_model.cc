#include "model/multimodal_model.h"

#include <glog/logging.h>

#include "base/build_config.h"
#include "base/error.h"
#include "expert_parallel/cuda/device_skip_table.h"
#include "experts/expert_store.h"
#include "model/cpu_model.h"
#include "model/cuda/device_model.h"
#include "model/disk_experts.h"
#include "model/expert_hash.h"
#include "model/model_backend.h"
#include "model/weight_loader.h"
#include "tensor/safetensors.h"

namespace skipper {
namespace {

ExpertPlacement place_experts(const ModelConfig& config, const WeightLoading& loading, int world_size) {
  if (loading.assignment) return loading.assignment->placement;
  return ExpertPlacement::contiguous({.num_moe_layers = config.num_moe_layers(),
                                      .num_experts = static_cast<int>(config.moe.num_experts),
                                      .world_size = world_size});
}

ExpertStoreConfig store_config(const WeightSource& source, const ExpertPlacement& placement, const WeightLoading& loading,
                               int rank) {
  if (!loading.assignment) return expert_store_config(source, placement, rank);
  check_formats(source.config, *loading.assignment, rank);
  return expert_store_config(source, *loading.assignment, rank);
}

bool is_gpu(Device device) { return device.kind == DeviceKind::kCuda; }

}  // namespace

struct MultimodalModel::State {
  State(const std::filesystem::path& directory, const ModelConfig& model_config, const ParallelContext& parallel,
        const StepLimits& step_limits, const WeightLoading& loading)
      : config(model_config),
        limits(step_limits),
        formats(loading.formats),
        device(parallel.device),
        group{parallel.data.rank(), parallel.data.size()},
        checkpoint(directory),
        placement(place_experts(config, loading, parallel.data.size())),
        store(store_config({checkpoint, config, loading.formats}, placement, loading, parallel.data.rank())),
        pairs(config.num_moe_layers()),
        skip_meter(config.num_moe_layers()) {
    if (is_gpu(device)) choose_tiers(loading);
    backend = make_backend(load(loading), parallel, loading.workers);
  }

  // Before loading takes its time.
  void choose_tiers(const WeightLoading& loading) {
    if constexpr (kBuiltWithCuda) {
      cuda::check_device_formats(config, loading.formats, store);
      const auto expert_bytes = gpu_expert_bytes(store);
      tiers = loading.assignment     ? loading.assignment->gpu_tiers()
              : loading.expert_tiers ? *loading.expert_tiers
                                     : choose_expert_tiers(expert_bytes, loading.gpu_experts);
      cuda::check_device_memory(config, loading.formats, bytes_of(tiers, expert_bytes), device);
    }
    (void)loading;
  }

  ModelWeights load(const WeightLoading& loading) {
    const WeightSource source{checkpoint, config, loading.formats};
    check_formats(config, loading.formats);
    std::optional<DiskExperts> on_disk = disk_experts(source, loading);
    if (on_disk) on_disk->settle_file(loading.workers, loading.progress);
    LoadQueue queue;
    DenseWeights dense = load_dense_weights(source, queue);
    load_experts(source, store, queue);
    queue.run(loading.workers, loading.progress);
    store.freeze();
    if (loading.assignment) check_expert_hashes(store, loading.assignment->slots, loading.workers);
    if (is_gpu(device)) return std::move(dense.weights);
    memory.mapped_bytes = settle_mapping(source, dense.weights.embedding) + dense.mapped_bytes + store.mapped_bytes();
    memory.dense_bytes = dense.packed_bytes;
    memory.expert_bytes = store.num_bytes();
    if (on_disk) residence = on_disk->open(routers_of(dense.weights));
    return std::move(dense.weights);
  }

  // Nothing where all experts rest in memory.
  std::optional<DiskExperts> disk_experts(const WeightSource& source, const WeightLoading& loading) const {
    if (store.disk_bytes() == 0) return std::nullopt;
    CHECK(loading.assignment && loading.disk && !is_gpu(device)) << "experts on disk, and nothing that says where";
    return std::optional<DiskExperts>(std::in_place, source, store, *loading.assignment, *loading.disk, group);
  }

  RouterGates routers_of(const ModelWeights& weights) const {
    RouterGates routers{.gates = {}, .top_k = config.moe.top_k};
    for (const DecoderLayerWeights& layer : weights.layers) {
      if (layer.router.defined()) routers.gates.push_back(layer.router);
    }
    return routers;
  }

  std::unique_ptr<ModelBackend> make_backend(ModelWeights weights, const ParallelContext& parallel, ThreadPool& workers) {
    const ModelParts parts{config, limits, placement, store, tiers, traffic, pairs, skip_meter, residence.get()};
    if constexpr (kBuiltWithCuda) {
      if (is_gpu(device)) {
        auto model = cuda::make_device_model(parts, std::move(weights), parallel, workers);
        memory.gpu_bytes = model->gpu_bytes();
        memory.pinned_bytes = model->pinned_bytes();
        checkpoint.release_all_pages();
        return model;
      }
    }
    (void)workers;
    CHECK(!is_gpu(device)) << "a model on a GPU asked of a build without CUDA";
    return make_cpu_model(parts, std::move(weights), parallel);
  }

  ModelConfig config;
  StepLimits limits;
  WeightConfig formats;
  Device device;
  RankOfGroup group;
  Checkpoint checkpoint;
  ExpertPlacement placement;
  ExpertStore store;
  ExpertTiers tiers;  // on a GPU
  TrafficCounters traffic;
  PairCounters pairs;
  SkipMeter skip_meter;
  WeightMemory memory;
  std::unique_ptr<DiskResidence> residence;  // of experts on disk
  std::unique_ptr<ModelBackend> backend;
};

MultimodalModel::MultimodalModel(const std::filesystem::path& directory, const ModelConfig& config,
                                 const ParallelContext& parallel, const StepLimits& limits, const WeightLoading& loading)
    : state_(std::make_unique<State>(directory, config, parallel, limits, loading)) {}

MultimodalModel::~MultimodalModel() = default;

const ModelConfig& MultimodalModel::config() const { return state_->config; }

Device MultimodalModel::device() const { return state_->device; }

ImageFeatures MultimodalModel::encode_images(std::span<const ImagePatches> images, Stream& stream) {
  return state_->backend->encode_images(images, stream);
}

StepOutput MultimodalModel::forward(const BatchInput& batch, KvCache& cache, Stream& stream) {
  return state_->backend->forward(batch, cache, stream);
}

Tensor MultimodalModel::token_usage() const { return state_->backend->token_usage(); }

std::chrono::nanoseconds MultimodalModel::expert_time() const { return state_->backend->expert_time(); }

int64_t MultimodalModel::bytes_per_sent_row() const { return state_->backend->bytes_per_sent_row(); }

DispatchDemand MultimodalModel::dispatch_demand() const { return state_->backend->dispatch_demand(); }

void MultimodalModel::set_step(int64_t step) { state_->backend->set_step(step); }

void MultimodalModel::set_routing_observer(const RoutingObserver& observer) { state_->backend->set_routing_observer(observer); }

std::vector<int64_t> MultimodalModel::expert_loads() { return state_->backend->expert_loads(); }

void MultimodalModel::set_activation_observer(const ActivationObserver& observer) {
  state_->backend->set_activation_observer(observer);
}

void MultimodalModel::set_expert_output_observer(const ExpertOutputObserver& observer) {
  state_->backend->set_expert_output_observer(observer);
}

void MultimodalModel::exchange_experts(ExpertStore& other) {
  CHECK(!is_gpu(state_->device)) << "a GPU's experts do not lie in the store";
  for (int layer = 0; layer < state_->store.num_layers(); ++layer) {
    if (!other.slots(layer).empty()) state_->store.exchange_layer(layer, other);
  }
}

void MultimodalModel::check_levels(const LevelTable& levels) const {
  if constexpr (kBuiltWithCuda) {
    if (is_gpu(state_->device)) cuda::require_rules_of_gpu(levels);
  }
  (void)levels;
}

void MultimodalModel::set_expert_formats(int moe_layer, std::span<const WeightFormat> formats, ThreadPool& workers) {
  if (is_gpu(state_->device) || state_->config.quantization) {
    throw InvalidRequest("formats of experts change on CPUs alone and with the original checkpoint; use --device cpu", "device");
  }
  const std::span<const ExpertSlot> now = state_->store.slots(moe_layer);
  CHECK_EQ(formats.size(), now.size());
  std::vector<ExpertSlot> slots(now.begin(), now.end());
  for (size_t slot = 0; slot < slots.size(); ++slot) slots[slot].format = formats[slot];
  ExpertStore fresh = load_expert_layer({state_->checkpoint, state_->config, state_->formats}, moe_layer, slots, workers);
  state_->store.exchange_layer(moe_layer, fresh);
}

const ExpertPlacement& MultimodalModel::placement() const { return state_->placement; }

const TrafficCounters& MultimodalModel::traffic() const { return state_->traffic; }

const PairCounters& MultimodalModel::pairs() const { return state_->pairs; }

std::span<const SkipCost> MultimodalModel::skip_costs() const {
  return is_gpu(state_->device) ? std::span<const SkipCost>() : state_->skip_meter.costs();
}

double MultimodalModel::expert_bits_per_weight() const {
  double bits = 0.0;
  int64_t num_experts = 0;
  for (int layer = 0; layer < state_->store.num_layers(); ++layer) {
    for (const ExpertSlot& slot : state_->store.slots(layer)) {
      bits += slot.format.bits_per_weight();
      ++num_experts;
    }
  }
  return num_experts == 0 ? 0.0 : bits / static_cast<double>(num_experts);
}

WeightMemory MultimodalModel::weight_memory() const {
  WeightMemory memory = state_->memory;
  memory.resident_mapping_bytes = state_->checkpoint.resident_bytes();
  return memory;
}

const ExpertStore& MultimodalModel::expert_store() const { return state_->store; }

const DiskResidence* MultimodalModel::disk_residence() const { return state_->residence.get(); }

}  // namespace skipper
