#include "tests/expert_parallel/cuda/device_moe_run.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace skipper::cuda {

namespace {

int world_size_of(const DeviceMoeSetup& setup) { return setup.dispatcher == nullptr ? 1 : setup.dispatcher->world_size(); }

DeviceMoeBufferConfig buffer_config(const DeviceMoeSetup& setup, const ExpertPlacement& placement) {
  const MoeShape& shape = setup.weights.shape;
  return {.max_tokens = setup.max_tokens,
          .hidden_size = shape.hidden_size,
          .num_experts = shape.num_experts,
          .top_k = shape.top_k,
          .intermediate_size = shape.intermediate_size,
          .max_local_experts = placement.max_local_experts(),
          .world_size = placement.world_size(),
          .payload_format = setup.payload_format,
          .expert_output_dtype = setup.expert_output_dtype,
          .combine_dtype = setup.combine_dtype};
}

// Rows of a matrix in which gate and up lie in turn by eight, back in the order gate, up. gate_up [2 · I, H] bf16
void separate(const Tensor& matrix, Tensor gate_up) {
  const int64_t width = matrix.dim(0) / 2;
  for (int64_t row = 0; row < matrix.dim(0); ++row) {
    const int64_t target = row / 16 * 8 + row % 8 + (row % 16 >= 8 ? width : 0);
    const float* from = matrix.row<float>(row);
    std::transform(from, from + matrix.dim(1), gate_up.row<bf16>(target), [](float value) { return bf16(value); });
  }
}

}  // namespace

DeviceMoeRun::DeviceMoeRun(const DeviceMoeSetup& setup, Stream& stream)
    : setup_(setup),
      stream_(stream),
      placement_(ExpertPlacement::contiguous({.num_moe_layers = 1,
                                              .num_experts = static_cast<int>(setup.weights.shape.num_experts),
                                              .world_size = world_size_of(setup)})),
      topology_(setup.node_of_rank.empty() ? std::vector<int>(static_cast<size_t>(world_size_of(setup)), 0) : setup.node_of_rank),
      skip_table_({.num_moe_layers = 1, .num_experts = setup.weights.shape.num_experts}, setup.device),
      tallies_(1, setup.device),
      buffers_(buffer_config(setup, placement_), setup.device) {
  skip_table_.upload(setup.levels, stream);
  upload_experts();
  const MoeShape& shape = setup.weights.shape;
  layer_ = std::make_unique<DeviceMoeLayer>(DeviceMoeConfig{.hidden_size = shape.hidden_size,
                                                            .num_experts = shape.num_experts,
                                                            .top_k = shape.top_k,
                                                            .intermediate_size = shape.intermediate_size},
                                            weights_,
                                            DeviceMoeContext{placement_, topology_, skip_table_, tallies_, setup.dispatcher});
}

void DeviceMoeRun::upload_experts() {
  const MoeShape& shape = setup_.weights.shape;
  const int rank = setup_.dispatcher == nullptr ? 0 : setup_.dispatcher->rank();
  const std::vector<int32_t>& experts = placement_.experts_of(rank, 0);
  std::vector<WeightFormat> formats;
  for (const int32_t expert : experts) {
    formats.push_back(setup_.expert_formats.empty() ? WeightFormat{} : setup_.expert_formats[static_cast<size_t>(expert)]);
  }
  const int64_t width = shape.intermediate_size;
  weights_.router = upload(setup_.weights.router);
  weights_.gate_up = empty_device_matrices(formats, {2 * width, shape.hidden_size}, setup_.device);
  weights_.down = empty_device_matrices(formats, {shape.hidden_size, width}, setup_.device);
  for (size_t slot = 0; slot < experts.size(); ++slot) {
    std::vector<std::byte> packed(device_matrix_bytes(formats[slot], weights_.gate_up.shape));
    const Tensor gate_up = setup_.weights.gate_up.at(experts[slot]);
    pack_device_gate_up(gate_up.slice(0, width), gate_up.slice(width, 2 * width), formats[slot], packed);
    upload_matrix(packed, static_cast<int>(slot), weights_.gate_up, stream_);
    std::vector<std::byte> packed_down(device_matrix_bytes(formats[slot], weights_.down.shape));
    pack_device_matrix(setup_.weights.down.at(experts[slot]), formats[slot], packed_down);
    upload_matrix(packed_down, static_cast<int>(slot), weights_.down, stream_);
    stream_.synchronize();
  }
}

DeviceMoeResult DeviceMoeRun::forward(const TokenBatch& batch, const DispatchPlan& plan) {
  load(batch);
  queue(plan);
  return fetch();
}

void DeviceMoeRun::load(const TokenBatch& batch) {
  const auto num_tokens = static_cast<int64_t>(batch.size());
  Tensor hidden = Tensor::empty({num_tokens, setup_.weights.shape.hidden_size}, DType::kF32);
  Tensor rounded = Tensor::empty(hidden.shape(), DType::kBF16);
  std::ranges::copy(batch.hidden, hidden.span<float>().begin());
  std::ranges::transform(batch.hidden, rounded.span<bf16>().begin(), [](float value) { return bf16(value); });
  const TokenPolicies policies = TokenPolicies::defaults(num_tokens);
  Tensor classes = policies.token_class, levels = policies.level;
  for (size_t t = 0; t < batch.size(); ++t) {
    classes.data<uint8_t>()[t] = static_cast<uint8_t>(batch.classes[t]);
    levels.data<uint8_t>()[t] = batch.levels[t];
  }
  x_ = {upload(hidden), upload(rounded)};
  tokens_ = {upload(classes), upload(levels), upload(policies.phase), upload(policies.step_token), upload(policies.usage)};
  // NaNs that a row without experts must not keep.
  std::memset(hidden.bytes(), 0xff, hidden.num_bytes());
  out_ = upload(hidden);
}

void DeviceMoeRun::queue(const DispatchPlan& plan) { layer_->forward({x_, tokens_, plan}, buffers_, out_, stream_); }

DeviceMoeResult DeviceMoeRun::fetch() {
  const int64_t num_tokens = out_.dim(0);
  return {download(out_), download(buffers_.expert_ids.first(num_tokens)), download(buffers_.routed_ids.first(num_tokens)),
          download(tokens_.usage)};
}

void DeviceMoeRun::fetch_counts() {
  tallies_.queue_fetch(stream_);
  stream_.synchronize();
  const int64_t hidden_size = setup_.weights.shape.hidden_size;
  tallies_.add_news({.dispatch = row_bytes(setup_.payload_format, hidden_size),
                     .combine = hidden_size * static_cast<int64_t>(size_of(setup_.combine_dtype))},
                    pairs_, traffic_);
}

bool DeviceMoeRun::take_overflow() {
  Tensor& flag = buffers_.dispatch.overflow;
  const bool has_overflown = download(flag).data<int32_t>()[0] != 0;
  fill_zero(flag.bytes(), flag.num_bytes(), flag.device());
  return has_overflown;
}

MoeWeights DeviceMoeRun::multiplied_weights() const {
  MoeWeights multiplied = setup_.weights;
  multiplied.gate_up = Tensor::empty(multiplied.gate_up.shape(), DType::kBF16);
  multiplied.down = Tensor::empty(multiplied.down.shape(), DType::kBF16);
  for (int expert = 0; expert < weights_.down.num_matrices(); ++expert) {
    separate(read_back(weights_.gate_up, expert, stream_), multiplied.gate_up.at(expert));
    const Tensor down = read_back(weights_.down, expert, stream_);
    std::ranges::transform(down.span<float>(), multiplied.down.at(expert).span<bf16>().begin(),
                           [](float value) { return bf16(value); });
  }
  return multiplied;
}

Tensor DeviceMoeRun::upload(const Tensor& host) {
  Tensor copy = Tensor::empty(host.shape(), host.dtype(), setup_.device);
  copy_bytes({host.bytes(), host.device(), copy.bytes(), copy.device(), host.num_bytes()}, stream_);
  stream_.synchronize();
  return copy;
}

Tensor DeviceMoeRun::download(const Tensor& gpu) {
  Tensor copy = Tensor::empty(gpu.shape(), gpu.dtype());
  copy_bytes({gpu.bytes(), gpu.device(), copy.bytes(), copy.device(), gpu.num_bytes()}, stream_);
  stream_.synchronize();
  return copy;
}

}  // namespace skipper::cuda
