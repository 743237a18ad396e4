#include "expert_parallel/token_dispatcher.h"

#include <glog/logging.h>

#include <cstring>
#include <numeric>
#include <span>

#include "expert_parallel/incoming_tokens.h"
#include "expert_parallel/outgoing_tokens.h"
#include "kernels/permute_tokens.h"

// A worked example: 4 ranks, 8 experts, top-2. Rank r owns experts 2r (slot 0) and 2r + 1 (slot 1). Rank 0 holds tokens a, b
// and rank 2 holds token c; ranks 1 and 3 hold none but take part. "–" is an expert that was skipped.
//
//   routing               a → 5, 4        b → 0, 6        c → 5, –
//   destinations          rank 2          ranks 0, 3      rank 2           a token goes once to a rank, not to an expert
//
//   counts (tokens, pairs) sent           to rank 0   1   2      3
//     by rank 0                           1, 1     0   1, 2   1, 1
//     by rank 2                           0        0   1, 1   0           rank 2 counts its own token as well
//   payload of rank 0
//     to rank 0   row b | 1 | slot 0 | w(b, 0)               no message: straight to where received tokens lie
//     to rank 2   row a | 2 | slots 1, 0 | w(a, 5), w(a, 4)
//     to rank 3   row b | 1 | slot 0 | w(b, 6)
//
//   at rank 2             received rows a, c     pairs: a at slot 1, a at slot 0, c at slot 1
//     sorted by expert    expert 4: a            expert 5: a, c            row_index = 0, 0, 1   row_offsets = 0, 1, 3
//     weighted sums       a: w(a, 5)·E5(a) + w(a, 4)·E4(a)                 c: w(c, 5)·E5(c)      row_of_pair = 1, 0, 2
//     back                one row to rank 0, one row stays
//   at rank 0             returned rows a from rank 2, b from rank 3, b of its own; each token's are added in rank order
//     out[a] = 0 + sum of rank 2                 out[b] = 0 + sum of rank 0 + sum of rank 3

namespace skipper {

namespace {

int64_t sum_of(const std::vector<int64_t>& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

int64_t num_tokens_of(const std::vector<DispatchCounts>& counts) {
  int64_t sum = 0;
  for (const DispatchCounts& count : counts) sum += count.num_tokens();
  return sum;
}

int64_t num_pairs_of(const std::vector<DispatchCounts>& counts) {
  int64_t sum = 0;
  for (const DispatchCounts& count : counts) sum += count.pairs;
  return sum;
}

void finish(std::unique_ptr<PendingOperation>& operation) {
  if (operation) operation->finish();
  operation.reset();
}

// Sizes of the parts of an exchange that carries one row per token.
void set_combine_bytes(const std::vector<DispatchCounts>& counts, const DispatchBuffers& buffers, std::vector<int64_t>& bytes) {
  for (size_t rank = 0; rank < counts.size(); ++rank) {
    bytes[rank] = buffers.is_own(rank) ? 0 : counts[rank].num_tokens() * buffers.combine_row_bytes();
  }
}

// In place of the other ranks' sums, where none travel. The own ones lie behind them.
void clear_sums_of_others(int64_t num_sent, DispatchBuffers& buffers) {
  const int64_t num_own = buffers.sent_counts[static_cast<size_t>(buffers.own_rank)].num_tokens();
  Tensor sums = buffers.returned_sums.first(num_sent - num_own);
  std::memset(sums.bytes(), 0, sums.num_bytes());
}

// One direction of the exchange with one rank.
void count_payload(const DispatchCounts& counts, Direction direction, Hop hop, int64_t row_bytes,
                   TrafficCounters& counters) {
  auto& payload = counters.payload_bytes[static_cast<size_t>(direction)][static_cast<size_t>(hop)];
  auto& saved = counters.saved_bytes[static_cast<size_t>(direction)][static_cast<size_t>(hop)];
  for (size_t c = 0; c < kNumTokenClasses; ++c) {
    payload[c] += counts.tokens[c] * row_bytes;
    saved[c] += (counts.unskipped_tokens[c] - counts.tokens[c]) * row_bytes;
  }
}

}  // namespace

void DispatchHandle::advance(Phase from, Phase to) {
  CHECK(phase_ == from) << "dispatch and combine are called out of order";
  phase_ = to;
}

TokenDispatcher::TokenDispatcher(const Context& context)
    : context_(context), counts_bytes_(static_cast<size_t>(context.data.size()), sizeof(DispatchCounts)) {
  CHECK_EQ(context.data.size(), context.placement.world_size());
  CHECK_EQ(context.data.size(), context.topology.num_ranks());
}

DispatchHandle TokenDispatcher::start_dispatch(const DispatchInput& input, DispatchBuffers& buffers, Stream& stream) {
  DispatchHandle handle(buffers);
  handle.layer_ = input.layer;
  handle.moe_layer_ = input.moe_layer;
  handle.num_tokens_ = input.hidden.dim(0);
  CHECK_LE(handle.num_tokens_, buffers.shape.max_tokens);
  enter(handle, "dispatch");
  buffers.own_rank = context_.data.rank();

  const OutgoingTokens tokens{.hidden = input.hidden,
                              .routing = input.routing,
                              .routed_ids = input.routed_ids,
                              .policies = input.policies,
                              .homes = context_.placement.homes_seen_from(context_.data.rank(), input.moe_layer)};
  plan_outgoing(tokens, buffers);
  auto counts = start_counts(buffers, stream);
  pack_outgoing(tokens, buffers, stream);
  finish(counts);
  check_received_counts(buffers);

  handle.num_sent_ = num_tokens_of(buffers.sent_counts);
  handle.num_received_ = num_tokens_of(buffers.received_counts);
  handle.num_pairs_ = num_pairs_of(buffers.received_counts);
  handle.pending_ = start_payload(buffers, stream);
  place_own_tokens(tokens, buffers, stream);
  count_dispatch(buffers);
  return handle;
}

ExpertBatch TokenDispatcher::finish_dispatch(DispatchHandle& handle, Stream& stream) {
  handle.advance(DispatchHandle::Phase::kDispatching, DispatchHandle::Phase::kComputing);
  enter(handle, "dispatch");
  finish(handle.pending_);

  DispatchBuffers& buffers = *handle.buffers_;
  const auto& local_experts = context_.placement.experts_of(context_.data.rank(), handle.moe_layer_);
  const IncomingTokens tokens{.num_tokens = handle.num_received_,
                              .num_pairs = handle.num_pairs_,
                              .num_local_experts = static_cast<int>(local_experts.size())};
  unpack_incoming(tokens, buffers, stream);
  sort_by_expert(tokens, buffers);
  return {.tokens = buffers.received_rows.first(tokens.num_tokens),
          .row_index = buffers.row_index.first(tokens.num_pairs),
          .row_offsets = buffers.row_offsets.first(tokens.num_local_experts + 1)};
}

void TokenDispatcher::start_combine(DispatchHandle& handle, const Tensor& expert_output, Stream& stream) {
  handle.advance(DispatchHandle::Phase::kComputing, DispatchHandle::Phase::kCombining);
  enter(handle, "combine");
  DispatchBuffers& buffers = *handle.buffers_;
  CHECK_EQ(expert_output.dim(0), handle.num_pairs_);

  sum_pairs(handle, expert_output, stream);
  set_combine_bytes(buffers.received_counts, buffers, buffers.send_bytes);
  set_combine_bytes(buffers.sent_counts, buffers, buffers.receive_bytes);
  handle.pending_ = start_exchange(buffers.partial_sums, buffers.returned_sums, buffers, stream);
  count_combine(buffers);
}

void TokenDispatcher::finish_combine(DispatchHandle& handle, Tensor& out, Stream& stream) {
  handle.advance(DispatchHandle::Phase::kCombining, DispatchHandle::Phase::kDone);
  enter(handle, "combine");
  CHECK_EQ(out.dim(0), handle.num_tokens_);
  finish(handle.pending_);

  DispatchBuffers& buffers = *handle.buffers_;
  if (!buffers.config.rows_travel()) clear_sums_of_others(handle.num_sent_, buffers);
  row_sum({.x = buffers.returned_sums.first(handle.num_sent_),
           .row_index = buffers.returned_index.first(handle.num_sent_),
           .offsets = buffers.returned_offsets.first(handle.num_tokens_ + 1)},
          out, stream);
}

// The sums of the own tokens go straight to their place among those that come back; the others' lie together.
void TokenDispatcher::sum_pairs(const DispatchHandle& handle, const Tensor& expert_output, Stream& stream) {
  DispatchBuffers& buffers = *handle.buffers_;
  const auto own = static_cast<size_t>(buffers.own_rank);
  const int64_t num_own = buffers.received_counts[own].num_tokens();
  const int64_t own_begin = buffers.received_from(own).row, own_end = own_begin + num_own;
  const auto sum_rows = [&](int64_t begin, int64_t end, Tensor sums) {
    if (begin == end) return;
    weighted_row_sum({.x = expert_output,
                      .row_of_pair = buffers.row_of_pair.first(handle.num_pairs_),
                      .weights = buffers.pair_weights.first(handle.num_pairs_),
                      .pair_offsets = buffers.pair_offsets.slice(begin, end + 1)},
                     sums, stream);
  };
  sum_rows(0, own_begin, buffers.partial_sums.first(own_begin));
  sum_rows(own_begin, own_end, buffers.returned_sums.slice(handle.num_sent_ - num_own, handle.num_sent_));
  sum_rows(own_end, handle.num_received_, buffers.partial_sums.slice(own_begin, handle.num_received_ - num_own));
}

std::unique_ptr<PendingOperation> TokenDispatcher::start_counts(DispatchBuffers& buffers, Stream& stream) {
  if (is_alone()) {
    buffers.received_counts = buffers.sent_counts;
    return nullptr;
  }
  const std::span<const std::byte> send = std::as_bytes(std::span(buffers.sent_counts));
  const std::span<std::byte> receive = std::as_writable_bytes(std::span(buffers.received_counts));
  return context_.data.start_all_to_all_v({send.data(), send.size()}, counts_bytes_, {receive.data(), receive.size()},
                                          counts_bytes_, stream);
}

std::unique_ptr<PendingOperation> TokenDispatcher::start_payload(DispatchBuffers& buffers, Stream& stream) {
  for (size_t rank = 0; rank < buffers.receive_bytes.size(); ++rank) {
    const PayloadLayout layout = layout_of(buffers.received_counts[rank], buffers.payload_row_bytes());
    buffers.receive_bytes[rank] = buffers.is_own(rank) ? 0 : layout.num_bytes();
  }
  return start_exchange(buffers.send_message, buffers.receive_message, buffers, stream);
}

std::unique_ptr<PendingOperation> TokenDispatcher::start_exchange(const Tensor& send, Tensor& receive,
                                                                  const DispatchBuffers& buffers, Stream& stream) {
  if (is_alone()) return nullptr;
  const ConstBuffer from{send.bytes(), static_cast<size_t>(sum_of(buffers.send_bytes))};
  const Buffer to{receive.bytes(), static_cast<size_t>(sum_of(buffers.receive_bytes))};
  return context_.data.start_all_to_all_v(from, buffers.send_bytes, to, buffers.receive_bytes, stream);
}

void TokenDispatcher::check_received_counts(const DispatchBuffers& buffers) const {
  for (size_t rank = 0; rank < buffers.received_counts.size(); ++rank) {
    check_counts(buffers.received_counts[rank], buffers.capacity(), static_cast<int>(rank));
  }
}

void TokenDispatcher::count_dispatch(const DispatchBuffers& buffers) {
  auto& wire_bytes = context_.counters.wire_bytes[static_cast<size_t>(Direction::kDispatch)];
  for (size_t rank = 0; rank < buffers.sent_counts.size(); ++rank) {
    const Hop hop = hop_to(static_cast<int>(rank));
    count_payload(buffers.sent_counts[rank], Direction::kDispatch, hop, buffers.payload_row_bytes(), context_.counters);
    const PayloadLayout layout = layout_of(buffers.sent_counts[rank], buffers.payload_row_bytes());
    wire_bytes[static_cast<size_t>(hop)] += layout.num_bytes() + counts_bytes_[rank];
  }
}

void TokenDispatcher::count_combine(const DispatchBuffers& buffers) {
  auto& wire_bytes = context_.counters.wire_bytes[static_cast<size_t>(Direction::kCombine)];
  for (size_t rank = 0; rank < buffers.received_counts.size(); ++rank) {
    const Hop hop = hop_to(static_cast<int>(rank));
    count_payload(buffers.received_counts[rank], Direction::kCombine, hop, buffers.combine_row_bytes(),
                  context_.counters);
    wire_bytes[static_cast<size_t>(hop)] += buffers.received_counts[rank].num_tokens() * buffers.combine_row_bytes();
  }
}

void TokenDispatcher::enter(const DispatchHandle& handle, const char* phase) {
  context_.data.set_context({.step = step_, .layer = handle.layer_, .phase = phase});
}

}  // namespace skipper
