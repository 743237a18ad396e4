#include "model/cuda/decoder_weights.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <utility>

#include "tensor/cuda/pinned_tensor.h"

namespace skipper::cuda {
namespace {

// Matrices on their way to the GPU together; page-locked, so that copies run at the speed of the bus.
constexpr size_t kStagingBytes = size_t{256} << 20;

// Weights in f32 are multiplied as BF16, too.
WeightFormat device_format(const WeightFormat& format) {
  return format.kind == WeightKind::kF32 ? WeightFormat{} : format;
}

Tensor f32_router(const PackedMatrix& router, Stream& stream) {
  return router.defined() ? upload(unpack(router), stream) : Tensor();
}

// How a matrix of a layer's experts is put in the order of the GPU.
struct ExpertMatrixKind {
  MatrixShape shape;
  int64_t gate_up_width = 0;  // 0: a matrix as it is
};

void repack(const PackedMatrix& packed, const ExpertMatrixKind& kind, std::span<std::byte> out) {
  const PackedMatrix source = as_multiplied(packed);
  if (kind.gate_up_width > 0) return repack_device_gate_up(source, kind.gate_up_width, out);
  repack_device_matrix(source, out);
}

// Places of `count` matrices, those of a layer's experts or of a dense network, whose tiers are none.
using Places = std::vector<MatrixPlace>;

MatrixPlace place_of(GpuExpertTier tier) {
  if (tier == GpuExpertTier::kHostComputed) return MatrixPlace::kAbsent;
  return tier == GpuExpertTier::kHostStreamed ? MatrixPlace::kHost : MatrixPlace::kDevice;
}

Places places_of(const ExpertTiers& tiers, int moe_layer, size_t count) {
  Places places;
  for (size_t slot = 0; slot < count; ++slot) places.push_back(place_of(tiers.at(moe_layer, static_cast<int>(slot))));
  return places;
}

HostExpertMatrices host_experts_of(const ExpertStore& store, int moe_layer, const Places& places) {
  HostExpertMatrices experts;
  for (size_t slot = 0; slot < places.size(); ++slot) {
    if (places[slot] != MatrixPlace::kAbsent) continue;
    experts.slots.push_back(static_cast<int32_t>(slot));
    experts.gate_up.push_back(store.gate_up(moe_layer)[slot]);
    experts.down.push_back(store.down(moe_layer)[slot]);
  }
  return experts;
}

std::vector<int32_t> absent_slots(const Places& places) {
  std::vector<int32_t> slots;
  for (size_t slot = 0; slot < places.size(); ++slot) {
    if (places[slot] == MatrixPlace::kAbsent) slots.push_back(static_cast<int32_t>(slot));
  }
  return slots;
}

// Brings the matrices of one kind to the GPU, some at a time, packed by all threads.
class MatrixUpload {
 public:
  MatrixUpload(ThreadPool& workers, Stream& stream)
      : workers_(workers), stream_(stream), staging_({static_cast<int64_t>(kStagingBytes)}, DType::kU8) {}

  DeviceMatrices upload(std::span<const PackedMatrix> packed, const ExpertMatrixKind& kind, const Places& places) {
    std::vector<WeightFormat> formats;
    for (const PackedMatrix& matrix : packed) formats.push_back(device_format(matrix.format));
    DeviceMatrices matrices = empty_device_matrices(formats, places, kind.shape, stream_.device());
    for (size_t begin = 0; begin < packed.size();) begin = upload_some(packed, begin, kind, matrices);
    return matrices;
  }

 private:
  struct Staged {
    size_t index;
    std::span<std::byte> bytes;
  };

  // Returns the first that found no place.
  size_t upload_some(std::span<const PackedMatrix> packed, size_t begin, const ExpertMatrixKind& kind, DeviceMatrices& matrices) {
    std::vector<Staged> staged;
    size_t used = 0, end = begin;
    for (; end < packed.size(); ++end) {
      if (matrices.places[end] == MatrixPlace::kAbsent) continue;
      const size_t num_bytes = device_matrix_bytes(matrices.formats[end], kind.shape);
      if (used + num_bytes > staging_.tensor().num_bytes()) {
        if (!staged.empty()) break;
        staging_ = PinnedTensor({static_cast<int64_t>(num_bytes)}, DType::kU8);
      }
      staged.push_back({end, {staging_.tensor().bytes() + used, num_bytes}});
      used += num_bytes;
    }
    workers_.parallel_for(static_cast<int64_t>(staged.size()), [&](int64_t i) {
      const Staged& matrix = staged[static_cast<size_t>(i)];
      repack(packed[matrix.index], kind, matrix.bytes);
    });
    for (const Staged& matrix : staged) upload_matrix(matrix.bytes, static_cast<int>(matrix.index), matrices, stream_);
    stream_.synchronize();
    return end;
  }

  ThreadPool& workers_;
  Stream& stream_;
  PinnedTensor staging_;
};

DeviceLayerWeights upload_dense_part(const DecoderLayerWeights& host, Stream& stream) {
  const std::array<PackedLinear, 3> qkv{host.attention.q, host.attention.k, host.attention.v};
  return {.input_norm = upload_f32(host.input_norm, stream),
          .qkv = upload_linear(qkv, stream),
          .o = upload_linear({&host.attention.o, 1}, stream),
          .q_norm = upload_f32(host.attention.q_norm, stream),
          .k_norm = upload_f32(host.attention.k_norm, stream),
          .post_attention_norm = upload_f32(host.post_attention_norm, stream),
          .router = f32_router(host.router, stream),
          .gate_up = {},
          .down = {}};
}

// A number in [−1, 1) for each index, of the finaliser of SplitMix64 (Steele et al. 2014).
float random_number(uint64_t seed, uint64_t index) {
  uint64_t x = (seed + index + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return static_cast<float>(static_cast<int32_t>(x >> 32)) * 0x1.0p-31f;
}

// Makes the parts of a random decoder, each with a seed of its own.
class RandomWeights {
 public:
  RandomWeights(const RandomWeightFormats& formats, uint64_t seed, Stream& stream)
      : formats_(formats), next_seed_(seed), stream_(stream) {}

  DeviceMatrices dense(const MatrixShape& shape) { return matrices({MatrixPlace::kDevice}, formats_.dense, shape); }
  DeviceMatrices experts(const Places& places, const MatrixShape& shape) { return matrices(places, formats_.experts, shape); }

  Tensor ones(int64_t size) {
    Tensor values = Tensor::empty({size}, DType::kF32);
    std::ranges::fill(values.span<float>(), 1.0f);
    return upload(values, stream_);
  }

  // BF16 in the size of embeddings.
  Tensor table(const Shape& shape) {
    Tensor values = Tensor::empty(shape, DType::kBF16);
    const uint64_t seed = next_seed();
    for (int64_t i = 0; i < values.num_elements(); ++i) {
      values.data<bf16>()[i] = bf16(random_number(seed, static_cast<uint64_t>(i)));
    }
    return upload(values, stream_);
  }

  // Of a spread that lets experts differ from token to token.
  Tensor router(const Shape& shape) {
    Tensor values = Tensor::empty(shape, DType::kF32);
    const uint64_t seed = next_seed();
    for (int64_t i = 0; i < values.num_elements(); ++i) {
      values.data<float>()[i] = 0.05f * random_number(seed, static_cast<uint64_t>(i));
    }
    return upload(values, stream_);
  }

 private:
  uint64_t next_seed() { return next_seed_ += 0x9e3779b97f4a7c15u; }

  DeviceMatrices matrices(const Places& places, const WeightFormat& format, const MatrixShape& shape) {
    const std::vector<WeightFormat> formats(places.size(), format);
    DeviceMatrices result = empty_device_matrices(formats, places, shape, stream_.device());
    fill_random(result, next_seed(), stream_);
    return result;
  }

  RandomWeightFormats formats_;
  uint64_t next_seed_;
  Stream& stream_;
};

// Without places the layer is dense.
DeviceLayerWeights random_layer(const ModelConfig& config, const Places& expert_places, RandomWeights& random) {
  const int64_t hidden = config.hidden_size, head_dim = config.attention.kv.key_dim;
  const int64_t query_size = config.attention.num_heads * head_dim;
  const int64_t qkv_size = query_size + 2 * config.attention.kv.kv_heads * head_dim;
  DeviceLayerWeights layer{.input_norm = random.ones(hidden),
                           .qkv = {random.dense({qkv_size, hidden}), {}},
                           .o = {random.dense({hidden, query_size}), {}},
                           .q_norm = random.ones(head_dim),
                           .k_norm = random.ones(head_dim),
                           .post_attention_norm = random.ones(hidden),
                           .router = {},
                           .gate_up = {},
                           .down = {}};
  if (expert_places.empty()) {
    layer.gate_up = random.dense({2 * config.dense_intermediate_size, hidden});
    layer.down = random.dense({hidden, config.dense_intermediate_size});
    return layer;
  }
  layer.router = random.router({config.moe.num_experts, hidden});
  layer.gate_up = random.experts(expert_places, {2 * config.moe.intermediate_size, hidden});
  layer.down = random.experts(expert_places, {hidden, config.moe.intermediate_size});
  return layer;
}

}  // namespace

size_t DecoderWeights::num_bytes() const {
  size_t total = embedding.num_bytes() + final_norm.num_bytes() + head.num_bytes();
  for (const DeviceLayerWeights& layer : layers) {
    total += layer.qkv.weight.num_bytes() + layer.o.weight.num_bytes() + layer.gate_up.num_bytes() + layer.down.num_bytes();
    if (layer.router.defined()) total += layer.router.num_bytes();
  }
  return total;
}

size_t DecoderWeights::host_expert_bytes() const {
  size_t total = 0;
  for (const DeviceLayerWeights& layer : layers) total += layer.host_expert_bytes();
  return total;
}

bool DecoderWeights::has_host_experts() const {
  return std::ranges::any_of(layers, [](const DeviceLayerWeights& layer) { return !layer.host_experts.empty(); });
}

size_t DecoderWeights::most_host_expert_bytes() const {
  size_t most = 0;
  for (const DeviceLayerWeights& layer : layers) most = std::max(most, layer.host_expert_bytes());
  return most;
}

DecoderWeights upload_decoder_weights(const ModelConfig& config, ModelWeights& host, const ExpertUpload& experts,
                                      ThreadPool& workers, Stream& stream) {
  MatrixUpload matrices(workers, stream);
  DecoderWeights weights;
  weights.embedding = upload(host.embedding, stream);
  int moe_layer = 0;
  for (DecoderLayerWeights& layer : host.layers) {
    DeviceLayerWeights& device = weights.layers.emplace_back(upload_dense_part(layer, stream));
    const bool is_dense = layer.dense.has_value();
    const int64_t width = is_dense ? config.dense_intermediate_size : config.moe.intermediate_size;
    const ExpertMatrixKind gate_up{{2 * width, config.hidden_size}, width}, down{{config.hidden_size, width}};
    if (is_dense) {
      device.gate_up = matrices.upload({&layer.dense->gate_up, 1}, gate_up, {MatrixPlace::kDevice});
      device.down = matrices.upload({&layer.dense->down, 1}, down, {MatrixPlace::kDevice});
    } else {
      const std::span<const PackedMatrix> gate_ups = experts.experts.gate_up(moe_layer);
      const Places places = places_of(experts.tiers, moe_layer, gate_ups.size());
      device.gate_up = matrices.upload(gate_ups, gate_up, places);
      device.down = matrices.upload(experts.experts.down(moe_layer), down, places);
      experts.experts.release(moe_layer, absent_slots(places));
      device.host_experts = host_experts_of(experts.experts, moe_layer, places);
      ++moe_layer;
    }
    layer = {};
  }
  host.layers.clear();
  weights.final_norm = upload_f32(host.final_norm, stream);
  weights.head = upload_linear({&host.head, 1}, stream).weight;
  host.head = {};
  return weights;
}

DecoderWeights random_decoder_weights(const ModelConfig& config, const RandomWeightFormats& formats, uint64_t seed,
                                      Stream& stream, const ExpertTiers& tiers) {
  RandomWeights random(formats, seed, stream);
  DecoderWeights weights;
  weights.embedding = random.table({config.vocab_size, config.hidden_size});
  int moe_layer = 0;
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
    Places places;
    if (config.is_moe_layer(layer)) places = places_of(tiers, moe_layer++, static_cast<size_t>(config.moe.num_experts));
    weights.layers.push_back(random_layer(config, places, random));
  }
  weights.final_norm = random.ones(config.hidden_size);
  weights.head = random.dense({config.vocab_size, config.hidden_size});
  return weights;
}

}  // namespace skipper::cuda
