#include "expert_parallel/cuda/node_relay.h"

#include <glog/logging.h>

#include <algorithm>

#include "expert_parallel/cuda/coded_rows.h"
#include "expert_parallel/traffic_counters.h"

namespace skipper::cuda {

namespace {

constexpr int64_t kSent = 0, kRelayed = 1, kFirstNeighbours = 2;  // rows of host_counts_

void copy(const Tensor& from, Tensor to, Stream& stream) {
  copy_bytes({from.bytes(), from.device(), to.bytes(), to.device(), from.num_bytes()}, stream);
}

PeerTransfer transfer(int peer, const Tensor& send, Tensor receive) {
  return {.peer = peer, .send = {send.bytes(), send.num_bytes()}, .receive = {receive.bytes(), receive.num_bytes()}};
}

int64_t bytes_of_row(const Tensor& rows) { return rows.row_elements() * static_cast<int64_t>(size_of(rows.dtype())); }

}  // namespace

NodeRelay::NodeRelay(NcclCommunicator& data, const ClusterTopology& topology, const NodeGrid& grid,
                     const DeviceDispatchShape& shape)
    : data_(data), topology_(topology), grid_(grid) {
  const int64_t nodes = grid.num_nodes(), neighbours = grid.ranks_per_node(), slots = nodes * shape.max_tokens;
  CHECK_EQ(nodes * neighbours, shape.world_size);
  const auto zeros = [&](const Shape& tensor, DType dtype) { return Tensor::zeros(tensor, dtype, data.device()); };
  row_slot_ = zeros({shape.max_tokens * std::max(nodes, neighbours)}, DType::kI32);
  node_counts_ = zeros({2, nodes}, DType::kI32);
  neighbour_counts_ = zeros({nodes, neighbours}, DType::kI32);
  relayed_rows_ = is_coded(shape.payload_format) ? zeros({slots, coded_row_bytes(shape.hidden_size)}, DType::kU8)
                                                 : zeros({slots, shape.hidden_size}, DType::kBF16);
  relayed_ids_ = zeros({slots, shape.top_k}, DType::kI32);
  relayed_weights_ = zeros({slots, shape.top_k}, DType::kF32);
  host_counts_ = PinnedTensor({kFirstNeighbours + nodes, std::max(nodes, neighbours)}, DType::kI32);
}

WireBytes NodeRelay::dispatch(const RelayInput& input, int64_t capacity, DeviceDispatchBuffers& buffers, Stream& stream) {
  pack_by_node(input, capacity, buffers, stream);
  send_to_partners(capacity, buffers, stream);
  pack_by_neighbour(input.maps, capacity, buffers, stream);
  send_to_neighbours(capacity, buffers, stream);
  return wire_bytes(buffers);
}

// A node is to this what a rank is to direct messages, and an expert's slot there is its number.
void NodeRelay::pack_by_node(const RelayInput& input, int64_t capacity, DeviceDispatchBuffers& buffers, Stream& stream) {
  const int64_t nodes = grid_.num_nodes(), slots = nodes * capacity, num_tokens = input.expert_ids.dim(0);
  Tensor num_rows = node_counts_.at(kSent), row_slot = row_slot_.first(num_tokens * nodes).reshaped({num_tokens, nodes});
  Tensor token_of_row = buffers.token_of_row.first(slots), rows = buffers.sent_rows.first(slots);
  Tensor ids = buffers.sent_slot_ids.first(slots), weights = buffers.sent_weights.first(slots);
  const OutgoingOutput outgoing{num_rows, row_slot, token_of_row, ids, weights, buffers.overflow};
  plan_outgoing({.expert_ids = input.expert_ids,
                 .expert_weights = input.expert_weights,
                 .rank_of_expert = input.maps.node_of_expert,
                 .slot_of_expert = input.maps.number_of_expert,
                 .world_size = grid_.num_nodes(),
                 .capacity = capacity},
                outgoing, stream);
  const PayloadFormat format = buffers.shape.payload_format;
  if (is_coded(format)) {
    pack_coded_rows(input.x.f32, outgoing, row_code_of(format), rows, stream);
  } else {
    pack_outgoing(input.x.bf16, outgoing, capacity, rows, stream);
  }
}

void NodeRelay::send_to_partners(int64_t capacity, DeviceDispatchBuffers& buffers, Stream& stream) {
  const Tensor sent_counts = node_counts_.at(kSent), relayed_counts = node_counts_.at(kRelayed);
  transfers_.clear();
  for (int node = 0; node < grid_.num_nodes(); ++node) {
    const int partner = grid_.partner(data_.rank(), node);
    transfers_.push_back(transfer(partner, sent_counts.slice(node, node + 1), relayed_counts.slice(node, node + 1)));
  }
  data_.exchange(transfers_, stream);
  for (const int64_t row : {kSent, kRelayed}) {
    copy(node_counts_.at(row), host_counts_.tensor().at(row).first(grid_.num_nodes()), stream);
  }
  data_.synchronize(stream);

  transfers_.clear();
  for (int node = 0; node < grid_.num_nodes(); ++node) {
    CHECK_LE(std::max(count(kSent, node), count(kRelayed, node)), capacity) << "rows were lost";
    const int64_t first = node * capacity, end_sent = first + count(kSent, node), end = first + count(kRelayed, node);
    push_rows(grid_.partner(data_.rank(), node),
              {buffers.sent_rows.slice(first, end_sent), buffers.sent_slot_ids.slice(first, end_sent),
               buffers.sent_weights.slice(first, end_sent)},
              {relayed_rows_.slice(first, end), relayed_ids_.slice(first, end), relayed_weights_.slice(first, end)});
  }
  data_.exchange(transfers_, stream);
}

void NodeRelay::push_rows(int peer, const Rows& send, Rows receive) {
  transfers_.push_back(transfer(peer, send.payload, receive.payload));
  transfers_.push_back(transfer(peer, send.ids, receive.ids));
  transfers_.push_back(transfer(peer, send.weights, receive.weights));
}

// The partners' rows of each node are sorted by neighbour as a source sorts its own by rank. What went to the partners has gone,
// in stream order, and leaves its memory to what follows.
void NodeRelay::pack_by_neighbour(const RelayMaps& maps, int64_t capacity, DeviceDispatchBuffers& buffers, Stream& stream) {
  const int64_t neighbours = grid_.ranks_per_node(), slots = neighbours * capacity;
  for (int64_t node = 0; node < grid_.num_nodes(); ++node) {
    const int64_t num_rows = count(kRelayed, node), first = node * slots, end = first + slots;
    const int64_t relayed = node * capacity, end_relayed = relayed + num_rows;
    Tensor counts = neighbour_counts_.at(node);
    Tensor row_slot = row_slot_.first(num_rows * neighbours).reshaped({num_rows, neighbours});
    Tensor row_of_slot = buffers.token_of_row.slice(first, end), rows = buffers.sent_rows.slice(first, end);
    Tensor ids = buffers.sent_slot_ids.slice(first, end), weights = buffers.sent_weights.slice(first, end);
    const OutgoingOutput outgoing{counts, row_slot, row_of_slot, ids, weights, buffers.overflow};
    const Tensor relayed_ids = relayed_ids_.slice(relayed, end_relayed);
    const Tensor relayed_weights = relayed_weights_.slice(relayed, end_relayed);
    plan_outgoing({.expert_ids = relayed_ids,
                   .expert_weights = relayed_weights,
                   .rank_of_expert = maps.place_of_expert,
                   .slot_of_expert = maps.slot_of_expert,
                   .world_size = grid_.ranks_per_node(),
                   .capacity = capacity},
                  outgoing, stream);
    hand_on_rows(relayed_rows_.slice(relayed, end_relayed), outgoing, rows, stream);
  }
}

// Between two neighbours messages go by ascending node of their source, on both sides.
void NodeRelay::send_to_neighbours(int64_t capacity, DeviceDispatchBuffers& buffers, Stream& stream) {
  const int own_node = grid_.node_of(data_.rank());
  const auto for_each_message = [&](const auto& push) {
    for (int node = 0; node < grid_.num_nodes(); ++node) {
      for (int place = 0; place < grid_.ranks_per_node(); ++place) push(node, place);
    }
  };
  transfers_.clear();
  for_each_message([&](int node, int place) {
    const int source = grid_.rank_at(node, place);
    transfers_.push_back(transfer(grid_.rank_at(own_node, place), neighbour_counts_.at(node).slice(place, place + 1),
                                  buffers.num_arrived.slice(source, source + 1)));
  });
  data_.exchange(transfers_, stream);
  for (int64_t node = 0; node < grid_.num_nodes(); ++node) {
    copy(neighbour_counts_.at(node), host_counts_.tensor().at(kFirstNeighbours + node).first(grid_.ranks_per_node()), stream);
  }
  copy(buffers.num_sent, buffers.host_counts.tensor().at(0), stream);
  copy(buffers.num_arrived, buffers.host_counts.tensor().at(1), stream);
  data_.synchronize(stream);

  transfers_.clear();
  const int32_t* num_arrived = buffers.host_counts.tensor().row<int32_t>(1);
  for_each_message([&](int node, int place) {
    const int64_t first = (int64_t{node} * grid_.ranks_per_node() + place) * capacity;
    const int64_t end = first + count(kFirstNeighbours + node, place);
    const int source = grid_.rank_at(node, place);
    const int64_t arrived = source * capacity, end_arrived = arrived + num_arrived[source];
    push_rows(grid_.rank_at(own_node, place),
              {buffers.sent_rows.slice(first, end), buffers.sent_slot_ids.slice(first, end),
               buffers.sent_weights.slice(first, end)},
              {buffers.arrived_payload.slice(arrived, end_arrived), buffers.arrived_slot_ids.slice(arrived, end_arrived),
               buffers.arrived_weights.slice(arrived, end_arrived)});
  });
  data_.exchange(transfers_, stream);
}

WireBytes NodeRelay::wire_bytes(const DeviceDispatchBuffers& buffers) const {
  const int64_t row_bytes =
      bytes_of_row(buffers.sent_rows) + bytes_of_row(buffers.sent_slot_ids) + bytes_of_row(buffers.sent_weights);
  WireBytes bytes;
  const auto add = [&](int peer, int64_t num_rows) {
    const auto hop = static_cast<size_t>(topology_.hop(data_.rank(), peer));
    bytes.by_direction_and_hop[static_cast<size_t>(Direction::kDispatch)][hop] += num_rows * row_bytes + int64_t{sizeof(int32_t)};
  };
  const int own_node = grid_.node_of(data_.rank());
  for (int node = 0; node < grid_.num_nodes(); ++node) {
    add(grid_.partner(data_.rank(), node), count(kSent, node));
    for (int place = 0; place < grid_.ranks_per_node(); ++place) {
      add(grid_.rank_at(own_node, place), count(kFirstNeighbours + node, place));
    }
  }
  return bytes;
}

}  // namespace skipper::cuda
