#include "expert_parallel/cuda/device_moe_layer.h"

#include <glog/logging.h>

#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "expert_parallel/cuda/coded_rows.h"
#include "expert_parallel/cuda/traffic_tally.h"
#include "kernels/cuda/expert_choice.h"
#include "kernels/cuda/expert_rows.h"
#include "kernels/cuda/expert_sums.h"
#include "kernels/cuda/matrix_products.h"
#include "kernels/cuda/routing.h"

namespace skipper::cuda {

namespace {

// Waits, so the values may go.
Tensor on_gpu(std::span<const int32_t> values, Device device) {
  Tensor copy = Tensor::empty({static_cast<int64_t>(values.size())}, DType::kI32, device);
  Stream stream(device);
  copy_bytes({reinterpret_cast<const std::byte*>(values.data()), Device::host(), copy.bytes(), device, copy.num_bytes()}, stream);
  stream.synchronize();
  return copy;
}

Tensor first_integers(int64_t count, Device device) {
  std::vector<int32_t> values(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), 0);
  return on_gpu(values, device);
}

// A field of the homes of a layer's experts.
Tensor homes_on_gpu(std::span<const ExpertHome> homes, int32_t ExpertHome::*field, Device device) {
  std::vector<int32_t> values;
  for (const ExpertHome& home : homes) values.push_back(home.*field);
  return on_gpu(values, device);
}

Tensor hops_on_gpu(const ClusterTopology& topology, int own_rank, Device device) {
  std::vector<int32_t> hops;
  for (int rank = 0; rank < topology.num_ranks(); ++rank) hops.push_back(static_cast<int32_t>(topology.hop(own_rank, rank)));
  return on_gpu(hops, device);
}

int64_t most_expert_rows(const DeviceMoeBufferConfig& config) {
  return config.world_size * config.max_tokens * std::min<int64_t>(config.top_k, config.max_local_experts);
}

DeviceDispatchShape dispatch_shape(const DeviceMoeBufferConfig& config) {
  return {.max_tokens = config.max_tokens,
          .hidden_size = config.hidden_size,
          .top_k = config.top_k,
          .world_size = config.world_size,
          .payload_format = config.payload_format,
          .combine_dtype = config.combine_dtype};
}

// Mean over the experts, as if tokens chose them evenly and skipped none; it chooses tiles, never bits.
int64_t expected_rows_per_expert(int64_t num_tokens, const DeviceMoeConfig& config) {
  return std::max<int64_t>(1, (num_tokens * config.top_k + config.num_experts - 1) / config.num_experts);
}

// Rows that reached this rank, and the pairs of each.
struct ExpertWork {
  const ArrivedRows& arrived;
  const Tensor& weights;  // [S · capacity, k] f32
  int64_t expected_rows = 1;
};

// What experts made of the rows, and where each pair's is.
struct ExpertOutputs {
  Tensor row_of_pair;  // [S · capacity, k] i32
  Tensor rows;         // [R, H]
};

// Memory for the pairs of some arrived rows, in the order of their experts. Views.
struct SortedMemory {
  Tensor row_offsets, row_index, row_of_pair, rows, activated, output;

  SortedExperts experts() { return {row_offsets, row_index, row_of_pair}; }
};

SortedMemory sorted_memory(int64_t num_arrived, int64_t top_k, int64_t num_experts, const DeviceMoeBuffers& buffers) {
  const int64_t num_rows = num_arrived * std::min(top_k, num_experts);
  return {.row_offsets = buffers.row_offsets.first(num_experts + 1),
          .row_index = buffers.row_index.first(num_rows),
          .row_of_pair = buffers.row_of_pair.first(num_arrived),
          .rows = buffers.sorted_rows.first(num_rows),
          .activated = buffers.activated.first(num_rows),
          .output = buffers.expert_output.first(num_rows)};
}

void check_input(const DeviceMoeInput& input, const Tensor& out, const DeviceMoeBuffers& buffers) {
  CHECK_LE(out.dim(0), buffers.config.max_tokens);
  CHECK(input.x.f32.shape() == out.shape() && input.x.bf16.shape() == out.shape()) << out.shape().to_string();
}

}  // namespace

// Who computes the experts of a layer, and where the GPU's are read: at rest, or in copies where the step has some.
struct DeviceMoeLayer::ExpertSource {
  const DeviceMoeWeights& weights;
  const DeviceMoeContext& context;
  int staging_number;  // −1: never in copies
  int host_number;     // −1: all on the GPU

  void run_sorted(SortedMemory& sorted, int64_t expected_rows, Stream& stream) const {
    if (host_number < 0) return run_on_gpu(sorted, expected_rows, stream);
    if (sorted.rows.dim(0) == 0) return;  // nor are there offsets that the host could read
    const SortedExpertRows rows{sorted.row_offsets, sorted.rows, sorted.output};
    context.host_experts->collect(host_number, rows, stream);
    // What the rows wait for may be another rank, whose end only the dispatcher notices.
    if (context.dispatcher != nullptr) context.dispatcher->synchronize(stream);
    run_on_gpu(sorted, expected_rows, stream);
    context.host_experts->compute(host_number, rows, stream);
  }
  void run_on_gpu(SortedMemory& sorted, int64_t expected_rows, Stream& stream) const {
    const ExpertMatricesOnGpu* copies = staging_number < 0 ? nullptr : context.staging->acquire(staging_number, stream);
    const DeviceMatrices& gate_up = copies == nullptr ? weights.gate_up : copies->gate_up;
    const DeviceMatrices& down = copies == nullptr ? weights.down : copies->down;
    if (context.timer != nullptr) context.timer->start(stream);
    expert_gate_up({sorted.rows, sorted.row_offsets, expected_rows}, gate_up, sorted.activated, stream);
    expert_down({sorted.activated, sorted.row_offsets, expected_rows}, down, sorted.output, stream);
    if (context.timer != nullptr) context.timer->stop(stream);
    if (copies != nullptr) context.staging->release(staging_number, stream);
  }
  ExpertOutputs run(const ExpertWork& work, DeviceMoeBuffers& buffers, Stream& stream) const {
    const Tensor& slot_ids = work.arrived.slot_ids;
    SortedMemory sorted = sorted_memory(slot_ids.dim(0), slot_ids.dim(1), weights.down.num_matrices(), buffers);
    sort_and_gather(work.arrived, sorted.experts(), sorted.rows, stream);
    run_sorted(sorted, work.expected_rows, stream);
    return {sorted.row_of_pair, sorted.output};
  }
};

DeviceMoeLayer::ExpertSource DeviceMoeLayer::experts() const {
  return {weights_, context_, staging_number_, host_number_};
}

DeviceMoeBuffers::DeviceMoeBuffers(const DeviceMoeBufferConfig& c, Device device)
    : config(c), dispatch(dispatch_shape(c), device) {
  const int64_t expert_rows = most_expert_rows(c);
  const auto empty = [&](const Shape& shape, DType dtype) { return Tensor::empty(shape, dtype, device); };
  row_numbers = first_integers(c.max_tokens + 1, device);
  logits = empty({c.max_tokens, c.num_experts}, DType::kF32);
  routed_ids = empty({c.max_tokens, c.top_k}, DType::kI32);
  expert_ids = empty({c.max_tokens, c.top_k}, DType::kI32);
  expert_weights = empty({c.max_tokens, c.top_k}, DType::kF32);
  routed_weights = empty({c.max_tokens, c.top_k}, DType::kF32);
  row_offsets = empty({c.max_local_experts + 1}, DType::kI32);
  row_index = empty({expert_rows}, DType::kI32);
  row_of_pair = empty({c.world_size * c.max_tokens, c.top_k}, DType::kI32);
  sorted_rows = empty({expert_rows, c.hidden_size}, DType::kBF16);
  activated = empty({expert_rows, c.intermediate_size}, DType::kBF16);
  expert_output = empty({expert_rows, c.hidden_size}, c.expert_output_dtype);
}

DeviceMoeLayer::DeviceMoeLayer(const DeviceMoeConfig& config, DeviceMoeWeights weights, const DeviceMoeContext& context)
    : config_(config), weights_(std::move(weights)), context_(context) {
  const Device device = weights_.router.device();
  CHECK(is_alone() || context.dispatcher != nullptr);
  own_rank_ = is_alone() ? 0 : context.dispatcher->rank();
  const auto homes = context.placement.homes(config.moe_layer);
  CHECK_EQ(homes.size(), static_cast<size_t>(config.num_experts));
  CHECK(weights_.router.shape() == Shape({config.num_experts, config.hidden_size})) << weights_.router.shape().to_string();
  CHECK_EQ(weights_.gate_up.num_matrices(), weights_.down.num_matrices());
  CHECK_EQ(weights_.down.num_matrices(), static_cast<int>(context.placement.experts_of(own_rank_, config.moe_layer).size()));
  rank_of_expert_ = homes_on_gpu(homes, &ExpertHome::rank, device);
  slot_of_expert_ = homes_on_gpu(homes, &ExpertHome::slot, device);
  hop_of_rank_ = hops_on_gpu(context.topology, own_rank_, device);
  map_nodes(homes, device);
  const ExpertMatricesOnGpu experts{weights_.gate_up, weights_.down};
  if (context.staging != nullptr && experts.num_host_bytes() > 0) staging_number_ = context.staging->add_layer(experts);
  CHECK_EQ(weights_.down.has_absent(), !weights_.host_experts.empty());
  if (weights_.host_experts.empty()) return;
  CHECK(context.host_experts != nullptr) << "nobody computes the experts of the host";
  host_number_ = context.host_experts->add_layer(weights_.host_experts);
}

void DeviceMoeLayer::map_nodes(std::span<const ExpertHome> homes, Device device) {
  const std::optional<NodeGrid> grid = NodeGrid::of(context_.topology);
  if (is_alone() || !grid) return;
  std::vector<int32_t> nodes, places, stops;
  for (const ExpertHome& home : homes) {
    nodes.push_back(grid->node_of(home.rank));
    places.push_back(grid->place_of(home.rank));
  }
  for (int rank = 0; rank < context_.topology.num_ranks(); ++rank) {
    stops.push_back(grid->partner(own_rank_, grid->node_of(rank)));
  }
  relay_maps_ = {first_integers(config_.num_experts, device), on_gpu(nodes, device), on_gpu(places, device), slot_of_expert_};
  first_stop_ = on_gpu(stops, device);
}

void DeviceMoeLayer::pack_rows(const NormedRows& x, const OutgoingOutput& outgoing, const DeviceMoeBuffers& buffers, Tensor& rows,
                               Stream& stream) const {
  const PayloadFormat format = buffers.config.payload_format;
  if (is_coded(format)) {
    pack_coded_rows(x.f32, outgoing, row_code_of(format), rows, stream);
  } else {
    pack_outgoing(x.bf16, outgoing, rows.dim(0) / buffers.config.world_size, rows, stream);
  }
}

void DeviceMoeLayer::forward(const DeviceMoeInput& input, DeviceMoeBuffers& buffers, Tensor& out, Stream& stream) const {
  check_input(input, out, buffers);
  if (is_alone()) {
    run_alone(input, buffers, [&](const PairTerms& terms) { weighted_pair_sums(terms, out, stream); }, stream);
  } else {
    forward_across_ranks(input, buffers, out, stream);
  }
}

void DeviceMoeLayer::route(const DeviceMoeInput& input, DeviceMoeBuffers& buffers, Stream& stream) const {
  Tensor logits = buffers.logits.first(input.x.f32.dim(0));
  router_logits(input.x.f32, weights_.router, logits, stream);
  with_routing(input.tokens, buffers, [&](const RouteInput& in, const RouteOutput& out) { route_tokens(in, out, stream); });
}

template <typename RouteWith>
void DeviceMoeLayer::with_routing(const DeviceTokens& tokens, DeviceMoeBuffers& buffers, const RouteWith& route_with) const {
  const int64_t num_tokens = tokens.token_class.num_elements();
  const Tensor logits = buffers.logits.first(num_tokens);
  const Tensor skip_rows = context_.skip_table.skip_rows(config_.moe_layer);
  const Tensor expert_scale = context_.skip_table.expert_scale(config_.moe_layer);
  Tensor expert_ids = buffers.expert_ids.first(num_tokens);
  Tensor routed_ids = buffers.routed_ids.first(num_tokens);
  Tensor expert_weights = buffers.expert_weights.first(num_tokens);
  Tensor usage = tokens.usage;
  Tensor pair_counts = context_.tallies.pair_counts(config_.moe_layer);
  route_with(RouteInput{.logits = logits,
                        .token_class = tokens.token_class,
                        .level = tokens.level,
                        .phase = tokens.phase,
                        .step_token = tokens.step_token,
                        .skip_rows = skip_rows,
                        .expert_scale = expert_scale,
                        .rank_of_expert = rank_of_expert_,
                        .hop_of_rank = hop_of_rank_,
                        .own_rank = own_rank_,
                        .world_size = static_cast<int>(hop_of_rank_.num_elements()),
                        .normalization = config_.normalization},
             RouteOutput{.expert_ids = expert_ids,
                         .routed_ids = routed_ids,
                         .expert_weights = expert_weights,
                         .usage = usage,
                         .pair_counts = pair_counts,
                         .expert_loads = context_.tallies.expert_loads(config_.moe_layer),
                         .routed_weights = buffers.keeps_routed_weights ? buffers.routed_weights.first(num_tokens) : Tensor()});
}

void DeviceMoeLayer::forward_sublayer(const DeviceTokens& tokens, const DispatchPlan& dispatch, const MoeSublayer& sublayer,
                                      DeviceMoeBuffers& buffers, Stream& stream) const {
  const int64_t num_tokens = sublayer.hidden.dim(0);
  if (can_choose_at_once(num_tokens, buffers)) return run_alone_at_once(tokens, sublayer, buffers, stream);
  add_rms_norm(sublayer.delta, sublayer.norm, sublayer.hidden, sublayer.normed, stream);
  const DeviceMoeInput input{sublayer.normed, tokens, dispatch};
  NormedRows out{{}, sublayer.normed.bf16};
  if (!is_alone()) {
    forward(input, buffers, sublayer.delta, stream);
    return add_rms_norm(sublayer.delta, sublayer.next_norm, sublayer.hidden, out, stream);
  }
  check_input(input, sublayer.hidden, buffers);
  run_alone(input, buffers, [&](const PairTerms& terms) {
    add_pair_sums_rms_norm(terms, sublayer.next_norm, sublayer.hidden, out, stream);
  }, stream);
}

// Rows that experts get in codes are rounded by a kernel of its own.
bool DeviceMoeLayer::can_choose_at_once(int64_t num_tokens, const DeviceMoeBuffers& buffers) const {
  return is_alone() && !is_coded(buffers.config.payload_format) && weights_.router.dtype() == DType::kF32 &&
         can_choose_experts({num_tokens, config_.hidden_size, config_.num_experts});
}

void DeviceMoeLayer::run_alone_at_once(const DeviceTokens& tokens, const MoeSublayer& sublayer, DeviceMoeBuffers& buffers,
                                       Stream& stream) const {
  const int64_t num_tokens = sublayer.hidden.dim(0);
  CHECK_LE(num_tokens, buffers.config.max_tokens);
  SortedMemory sorted = sorted_memory(num_tokens, config_.top_k, config_.num_experts, buffers);
  with_routing(tokens, buffers, [&](const RouteInput& in, const RouteOutput& out) {
    choose_experts({sublayer.delta, sublayer.norm, weights_.router, in},
                   {sublayer.hidden, out, sorted.experts(), sorted.rows}, stream);
  });
  experts().run_sorted(sorted, expected_rows_per_expert(num_tokens, config_), stream);
  const Tensor expert_ids = buffers.expert_ids.first(num_tokens), weights = buffers.expert_weights.first(num_tokens);
  const Tensor num_rows = buffers.row_numbers.slice(num_tokens, num_tokens + 1);
  const ArrivedRows arrived{sublayer.normed.bf16, expert_ids, num_rows, num_tokens};
  NormedRows out{{}, sublayer.normed.bf16};
  add_pair_sums_rms_norm({arrived, sorted.row_of_pair, weights, sorted.output, buffers.config.combine_dtype}, sublayer.next_norm,
                         sublayer.hidden, out, stream);
}

// One rank's rows are where they arrive, and its experts' slots are their ids. Calls add_up(PairTerms) after the experts.
template <typename AddUp>
void DeviceMoeLayer::run_alone(const DeviceMoeInput& input, DeviceMoeBuffers& buffers, const AddUp& add_up,
                               Stream& stream) const {
  const int64_t num_tokens = input.x.f32.dim(0);
  if (num_tokens == 0) return;
  route(input, buffers, stream);
  const Tensor expert_ids = buffers.expert_ids.first(num_tokens);
  const Tensor weights = buffers.expert_weights.first(num_tokens);
  const Tensor num_rows = buffers.row_numbers.slice(num_tokens, num_tokens + 1);
  const Tensor rows = rounded_rows(input.x, buffers, stream);
  const ArrivedRows arrived{rows, expert_ids, num_rows, num_tokens};
  const ExpertOutputs outputs = experts().run({arrived, weights, expected_rows_per_expert(num_tokens, config_)}, buffers, stream);
  add_up(PairTerms{arrived, outputs.row_of_pair, weights, outputs.rows, buffers.config.combine_dtype});
}

Tensor DeviceMoeLayer::rounded_rows(const NormedRows& x, DeviceMoeBuffers& buffers, Stream& stream) const {
  if (!is_coded(buffers.config.payload_format)) return x.bf16;
  Tensor rows = buffers.dispatch.arrived_rows.first(x.f32.dim(0));
  round_through_codes(x.f32, row_code_of(buffers.config.payload_format), rows, stream);
  return rows;
}

void DeviceMoeLayer::forward_across_ranks(const DeviceMoeInput& input, DeviceMoeBuffers& buffers, Tensor& out,
                                          Stream& stream) const {
  const DispatchPlan& plan = input.dispatch;
  if (plan.capacity == 0) return;  // no rank has a row
  send_rows(input, buffers, stream);

  const int64_t num_slots = plan.capacity * buffers.dispatch.shape.world_size;
  Tensor rows = buffers.dispatch.arrived_rows.first(num_slots);
  const Tensor slot_ids = buffers.dispatch.arrived_slot_ids.first(num_slots);
  const Tensor weights = buffers.dispatch.arrived_weights.first(num_slots);
  Tensor partial_sums = buffers.dispatch.partial_sums.first(num_slots);
  const ArrivedRows arrived{rows, slot_ids, buffers.dispatch.num_arrived, plan.capacity};
  const PayloadFormat format = buffers.config.payload_format;
  if (is_coded(format)) {
    const Tensor coded = buffers.dispatch.arrived_payload.first(num_slots);
    decode_arrived_rows({coded, buffers.dispatch.num_arrived, row_code_of(format)}, rows, stream);
  }
  if (weights_.down.num_matrices() > 0) {
    const int64_t expected_rows = expected_rows_per_expert(num_slots, config_);
    const ExpertOutputs outputs = experts().run({arrived, weights, expected_rows}, buffers, stream);
    weighted_pair_sums({arrived, outputs.row_of_pair, weights, outputs.rows}, partial_sums, stream);
  }

  context_.dispatcher->combine(config_.layer, plan, buffers.dispatch, stream);
  const Tensor row_slot = buffers.dispatch.row_slot.first(out.dim(0));
  add_returned(buffers.dispatch.returned_sums.first(num_slots), row_slot, plan.capacity, out, stream);
}

void DeviceMoeLayer::send_rows(const DeviceMoeInput& input, DeviceMoeBuffers& buffers, Stream& stream) const {
  const int64_t num_tokens = input.x.bf16.dim(0);
  const int64_t capacity = input.dispatch.capacity;
  DeviceDispatchBuffers& dispatch = buffers.dispatch;
  route(input, buffers, stream);

  const int64_t num_slots = capacity * dispatch.shape.world_size;
  const Tensor expert_ids = buffers.expert_ids.first(num_tokens);
  const Tensor expert_weights = buffers.expert_weights.first(num_tokens);
  Tensor row_slot = dispatch.row_slot.first(num_tokens);
  Tensor token_of_row = dispatch.token_of_row.first(num_slots);
  Tensor slot_ids = dispatch.sent_slot_ids.first(num_slots);
  Tensor weights = dispatch.sent_weights.first(num_slots);
  Tensor rows = dispatch.sent_rows.first(num_slots);
  const OutgoingOutput outgoing{dispatch.num_sent, row_slot, token_of_row, slot_ids, weights, dispatch.overflow};
  plan_outgoing({.expert_ids = expert_ids,
                 .expert_weights = expert_weights,
                 .rank_of_expert = rank_of_expert_,
                 .slot_of_expert = slot_of_expert_,
                 .world_size = dispatch.shape.world_size,
                 .capacity = capacity},
                outgoing, stream);
  const bool goes_by_node = input.dispatch.mode == DispatchMode::kExactCountsByNode;
  WireBytes wire_bytes;
  if (goes_by_node) {
    wire_bytes = context_.dispatcher->dispatch_by_node(config_.layer, {input.x, expert_ids, expert_weights, relay_maps_},
                                                       input.dispatch, dispatch, stream);
  } else {
    pack_rows(input.x, outgoing, buffers, rows, stream);
    wire_bytes = context_.dispatcher->dispatch(config_.layer, input.dispatch, dispatch, stream);
  }

  Tensor tallies = context_.tallies.traffic();
  const Tensor routed_ids = buffers.routed_ids.first(num_tokens);
  const Tensor first_stop = goes_by_node ? first_stop_ : Tensor();
  const TrafficTallyInput tally{routed_ids, expert_ids, input.tokens.token_class, rank_of_expert_, hop_of_rank_,
                                dispatch.num_sent, first_stop};
  tally_traffic(tally, wire_bytes, {tallies, dispatch.most_rows}, stream);
}

}  // namespace skipper::cuda
