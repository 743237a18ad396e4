#include "expert_parallel/cuda/device_dispatcher.h"

#include <glog/logging.h>

#include <algorithm>

#include "base/error.h"
#include "expert_parallel/traffic_counters.h"

// What goes from rank s to rank d at capacity C, in one exchange of messages that lie in slots, C rows apart:
//
//   message                sent from row d · C of     to row s · C of       rows: fixed slots / exact counts
//   hidden rows            sent_rows                  arrived_payload       C / n(s → d)
//   local experts          sent_slot_ids              arrived_slot_ids      C / n(s → d)
//   their weights          sent_weights               arrived_weights       C / n(s → d)
//   count n(s → d)         num_sent[d]                num_arrived[s]        in the same exchange / before, read by the host
//   partial sums, back     partial_sums (row s · C)   returned_sums         C / n(s → d)
//   SlotDemand, with it    demand                     demand_of_ranks[s]    once per step
//
// Slots have the same places in both modes, so that kernels do not know which of them ran.

namespace skipper::cuda {

namespace {

// To the experts, seen from this rank.
enum class Way : int64_t { kSent = 0, kArrived = 1 };

int64_t num_rows(const DispatchPlan& plan, const DeviceDispatchBuffers& buffers, Way way, int peer) {
  if (plan.mode == DispatchMode::kFixedSlots) return plan.capacity;
  const int32_t count = buffers.host_counts.tensor().at(static_cast<int64_t>(way)).data<int32_t>()[peer];
  return std::min<int64_t>(count, plan.capacity);  // what found no room is not there
}

int64_t bytes_of_row(const Tensor& rows) { return rows.row_elements() * static_cast<int64_t>(size_of(rows.dtype())); }

// One message per rank of tensors whose slots are `capacity` rows apart.
struct SlotMessage {
  const Tensor& send;
  Tensor& receive;
  Way sends = Way::kSent;
  Way receives = Way::kArrived;
};

PeerTransfer slot_transfer(const SlotMessage& message, int peer, const DispatchPlan& plan,
                           const DeviceDispatchBuffers& buffers) {
  const int64_t row_bytes = bytes_of_row(message.send);
  const int64_t slot = peer * plan.capacity * row_bytes;
  const int64_t send_bytes = num_rows(plan, buffers, message.sends, peer) * row_bytes;
  const int64_t receive_bytes = num_rows(plan, buffers, message.receives, peer) * row_bytes;
  return {.peer = peer,
          .send = {message.send.bytes() + slot, static_cast<size_t>(send_bytes)},
          .receive = {message.receive.bytes() + slot, static_cast<size_t>(receive_bytes)}};
}

PeerTransfer demand_transfer(int peer, DeviceDispatchBuffers& buffers) {
  return {.peer = peer,
          .send = {buffers.demand.bytes(), sizeof(SlotDemand)},
          .receive = {buffers.demand_of_ranks.bytes() + static_cast<size_t>(peer) * sizeof(SlotDemand), sizeof(SlotDemand)}};
}

}  // namespace

// Zeros, because fixed slots are sent also where no row was written.
DeviceDispatchBuffers::DeviceDispatchBuffers(const DeviceDispatchShape& s, Device device)
    : shape(s),
      demand(Tensor::zeros({2}, DType::kI32, device)),
      overflow(demand.slice(0, 1)),
      most_rows(demand.slice(1, 2)),
      demand_of_ranks(Tensor::zeros({s.world_size, 2}, DType::kI32, device)),
      no_demand(Tensor::zeros({2}, DType::kI32, device)) {
  if (s.payload_format == PayloadFormat::kF32) {
    throw InvalidFile("dispatch.payload_dtype is f32, which no GPU sends: their experts multiply BF16; take bf16, int8 or fp8");
  }
  const bool is_alone = s.world_size == 1;
  const bool codes = is_coded(s.payload_format);
  const int64_t slots = is_alone ? 0 : s.world_size * s.max_tokens;
  // Also a world of one rounds rows and sums through the formats in which others send them.
  const int64_t rounded_rows = is_alone && codes ? s.max_tokens : slots;
  const int64_t rounded_sums = is_alone && s.combine_dtype != DType::kF32 ? s.max_tokens : slots;
  const auto zeros = [&](const Shape& tensor, DType dtype) { return Tensor::zeros(tensor, dtype, device); };
  num_sent = zeros({s.world_size}, DType::kI32);
  row_slot = zeros({slots / s.world_size, s.world_size}, DType::kI32);
  token_of_row = zeros({slots}, DType::kI32);
  sent_slot_ids = zeros({slots, s.top_k}, DType::kI32);
  sent_weights = zeros({slots, s.top_k}, DType::kF32);
  sent_rows = codes ? zeros({slots, coded_row_bytes(s.hidden_size)}, DType::kU8) : zeros({slots, s.hidden_size}, DType::kBF16);
  returned_sums = zeros({rounded_sums, s.hidden_size}, s.combine_dtype);
  num_arrived = zeros({s.world_size}, DType::kI32);
  arrived_slot_ids = zeros({slots, s.top_k}, DType::kI32);
  arrived_weights = zeros({slots, s.top_k}, DType::kF32);
  arrived_rows = zeros({rounded_rows, s.hidden_size}, DType::kBF16);
  arrived_payload = codes ? zeros(sent_rows.shape(), DType::kU8) : arrived_rows;
  partial_sums = zeros({slots, s.hidden_size}, s.combine_dtype);
  if (s.world_size > 1) host_counts = PinnedTensor({2, s.world_size}, DType::kI32);
}

void DeviceDispatchBuffers::clear_demand(Stream& stream) {
  copy_bytes({no_demand.bytes(), no_demand.device(), demand.bytes(), demand.device(), demand.num_bytes()}, stream);
}

DeviceDispatcher::DeviceDispatcher(NcclCommunicator& data, const ClusterTopology& topology) : data_(data), topology_(topology) {
  CHECK_EQ(data.size(), topology.num_ranks());
}

WireBytes DeviceDispatcher::dispatch(int layer, const DispatchPlan& plan, DeviceDispatchBuffers& buffers, Stream& stream) {
  CHECK(plan.capacity > 0 && plan.capacity <= buffers.shape.max_tokens) << plan.capacity;
  data_.set_context({.step = step_, .layer = layer, .phase = "dispatch"});
  transfers_.clear();
  if (plan.mode == DispatchMode::kExactCounts) {
    exchange_counts(buffers, stream);
  } else {
    queue_counts(buffers);
  }
  for (int peer = 0; peer < world_size(); ++peer) {
    transfers_.push_back(slot_transfer({buffers.sent_rows, buffers.arrived_payload}, peer, plan, buffers));
    transfers_.push_back(slot_transfer({buffers.sent_slot_ids, buffers.arrived_slot_ids}, peer, plan, buffers));
    transfers_.push_back(slot_transfer({buffers.sent_weights, buffers.arrived_weights}, peer, plan, buffers));
  }
  data_.exchange(transfers_, stream);
  return wire_bytes(plan, buffers);
}

bool DeviceDispatcher::prepare_relay(const DeviceDispatchShape& shape) {
  const std::optional<NodeGrid> grid = NodeGrid::of(topology_);
  if (grid) relay_.emplace(data_, topology_, *grid, shape);
  return grid.has_value();
}

WireBytes DeviceDispatcher::dispatch_by_node(int layer, const RelayInput& input, const DispatchPlan& plan,
                                             DeviceDispatchBuffers& buffers, Stream& stream) {
  CHECK(relay_.has_value());
  CHECK(plan.capacity > 0 && plan.capacity <= buffers.shape.max_tokens) << plan.capacity;
  data_.set_context({.step = step_, .layer = layer, .phase = "dispatch"});
  WireBytes bytes = relay_->dispatch(input, plan.capacity, buffers, stream);
  add_combine_bytes(plan, buffers, bytes);
  return bytes;
}

void DeviceDispatcher::combine(int layer, const DispatchPlan& plan, DeviceDispatchBuffers& buffers, Stream& stream) {
  data_.set_context({.step = step_, .layer = layer, .phase = "combine"});
  transfers_.clear();
  for (int peer = 0; peer < world_size(); ++peer) {
    const SlotMessage back{buffers.partial_sums, buffers.returned_sums, Way::kArrived, Way::kSent};
    transfers_.push_back(slot_transfer(back, peer, plan, buffers));
    if (plan.tells_demand) transfers_.push_back(demand_transfer(peer, buffers));
  }
  data_.exchange(transfers_, stream);
}

// The one place where the host waits for the GPU.
void DeviceDispatcher::exchange_counts(DeviceDispatchBuffers& buffers, Stream& stream) {
  queue_counts(buffers);
  data_.exchange(transfers_, stream);
  transfers_.clear();
  const auto fetch = [&](const Tensor& counts, Way way) {
    Tensor row = buffers.host_counts.tensor().at(static_cast<int64_t>(way));
    copy_bytes({counts.bytes(), counts.device(), row.bytes(), row.device(), counts.num_bytes()}, stream);
  };
  fetch(buffers.num_sent, Way::kSent);
  fetch(buffers.num_arrived, Way::kArrived);
  data_.synchronize(stream);
}

void DeviceDispatcher::queue_counts(DeviceDispatchBuffers& buffers) {
  for (int peer = 0; peer < world_size(); ++peer) {
    transfers_.push_back({.peer = peer,
                          .send = {buffers.num_sent.bytes() + peer * sizeof(int32_t), sizeof(int32_t)},
                          .receive = {buffers.num_arrived.bytes() + peer * sizeof(int32_t), sizeof(int32_t)}});
  }
}

WireBytes DeviceDispatcher::wire_bytes(const DispatchPlan& plan, const DeviceDispatchBuffers& buffers) const {
  const int64_t row_bytes = bytes_of_row(buffers.sent_rows) + bytes_of_row(buffers.sent_slot_ids) +
                            bytes_of_row(buffers.sent_weights);
  WireBytes bytes;
  for (int peer = 0; peer < world_size(); ++peer) {
    const auto hop = static_cast<size_t>(topology_.hop(rank(), peer));
    bytes.by_direction_and_hop[static_cast<size_t>(Direction::kDispatch)][hop] +=
        num_rows(plan, buffers, Way::kSent, peer) * row_bytes + int64_t{sizeof(int32_t)};
  }
  add_combine_bytes(plan, buffers, bytes);
  return bytes;
}

void DeviceDispatcher::add_combine_bytes(const DispatchPlan& plan, const DeviceDispatchBuffers& buffers, WireBytes& bytes) const {
  for (int peer = 0; peer < world_size(); ++peer) {
    const int64_t demand_bytes = plan.tells_demand ? int64_t{sizeof(SlotDemand)} : 0;
    bytes.by_direction_and_hop[static_cast<size_t>(Direction::kCombine)][static_cast<size_t>(topology_.hop(rank(), peer))] +=
        num_rows(plan, buffers, Way::kArrived, peer) * bytes_of_row(buffers.partial_sums) + demand_bytes;
  }
}

}  // namespace skipper::cuda
