#include "expert_parallel/token_dispatcher.h"

#include <glog/logging.h>

#include <numeric>
#include <span>

#include "expert_parallel/incoming_tokens.h"
#include "expert_parallel/outgoing_tokens.h"
#include "kernels/elementwise.h"
#include "kernels/permute_tokens.h"

// A worked example: 4 ranks, 8 experts, top-2. Rank r owns experts 2r (slot 0) and 2r + 1 (slot 1). Rank 0 holds tokens a, b
// and rank 2 holds token c; ranks 1 and 3 hold none but take part. "–" is an expert that was skipped.
//
//   routing               a → 5, 4        b → 0, 6        c → 5, –
//   destinations          rank 2          ranks 0, 3      rank 2           a token goes once to a rank, not to an expert
//
//   counts (tokens, pairs) sent           to rank 0   1   2      3
//     by rank 0                           1, 1     0   1, 2   1, 1
//     by rank 2                           0        0   1, 1   0           rank 2's own token takes the same path
//   payload messages of rank 0
//     to rank 0   row b | 1 | slot 0 | w(b, 0)
//     to rank 2   row a | 2 | slots 1, 0 | w(a, 5), w(a, 4)
//     to rank 3   row b | 1 | slot 0 | w(b, 6)
//
//   at rank 2             received rows a, c     pairs: a at slot 1, a at slot 0, c at slot 1
//     sorted by expert    expert 4: a            expert 5: a, c            row_index = 0, 0, 1   row_offsets = 0, 1, 3
//     weighted sums       a: w(a, 5)·E5(a) + w(a, 4)·E4(a)                 c: w(c, 5)·E5(c)      row_of_pair = 1, 0, 2
//     back                one row to rank 0, one row to rank 2
//   at rank 0             rows in rank order: b from rank 0, a from rank 2, b from rank 3
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

// Sizes of the parts of an exchange that carries one row per token.
void set_row_bytes(const std::vector<DispatchCounts>& counts, int64_t row_bytes, std::vector<int64_t>& bytes) {
  for (size_t rank = 0; rank < counts.size(); ++rank) bytes[rank] = counts[rank].num_tokens() * row_bytes;
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

  const bool needs_rounding = buffers.config.payload_dtype != input.hidden.dtype();
  Tensor rows = needs_rounding ? buffers.payload_rows.first(handle.num_tokens_) : input.hidden;
  const OutgoingTokens tokens{.rows = rows,
                              .routing = input.routing,
                              .routed_ids = input.routed_ids,
                              .token_class = input.token_class,
                              .homes = context_.placement.homes(input.moe_layer)};
  plan_outgoing(tokens, buffers);
  const auto counts = start_counts(buffers, stream);
  if (needs_rounding) convert(input.hidden, rows, stream);
  pack_outgoing(tokens, buffers);
  counts->finish();
  check_received_counts(buffers);

  handle.num_sent_ = num_tokens_of(buffers.sent_counts);
  handle.num_received_ = num_tokens_of(buffers.received_counts);
  handle.num_pairs_ = num_pairs_of(buffers.received_counts);
  handle.pending_ = start_payload(buffers, stream);
  count_dispatch(buffers);
  return handle;
}

ExpertBatch TokenDispatcher::finish_dispatch(DispatchHandle& handle, Stream&) {
  handle.advance(DispatchHandle::Phase::kDispatching, DispatchHandle::Phase::kComputing);
  enter(handle, "dispatch");
  handle.pending_->finish();

  DispatchBuffers& buffers = *handle.buffers_;
  const auto& local_experts = context_.placement.experts_of(context_.data.rank(), handle.moe_layer_);
  const IncomingTokens tokens{.num_tokens = handle.num_received_,
                              .num_pairs = handle.num_pairs_,
                              .num_local_experts = static_cast<int>(local_experts.size())};
  unpack_incoming(tokens, buffers);
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

  Tensor partial_sums = buffers.partial_sums.first(handle.num_received_);
  weighted_row_sum({.x = expert_output,
                    .row_of_pair = buffers.row_of_pair.first(handle.num_pairs_),
                    .weights = buffers.pair_weights.first(handle.num_pairs_),
                    .pair_offsets = buffers.pair_offsets.first(handle.num_received_ + 1)},
                   partial_sums, stream);
  set_row_bytes(buffers.received_counts, buffers.combine_row_bytes(), buffers.send_bytes);
  set_row_bytes(buffers.sent_counts, buffers.combine_row_bytes(), buffers.receive_bytes);
  handle.pending_ = start_exchange(partial_sums, buffers.returned_sums, buffers, stream);
  count_combine(buffers);
}

void TokenDispatcher::finish_combine(DispatchHandle& handle, Tensor& out, Stream& stream) {
  handle.advance(DispatchHandle::Phase::kCombining, DispatchHandle::Phase::kDone);
  enter(handle, "combine");
  CHECK_EQ(out.dim(0), handle.num_tokens_);
  handle.pending_->finish();

  // Rows came back rank by rank, and within a rank in the order of its tokens: ascending rows add in rank order.
  DispatchBuffers& buffers = *handle.buffers_;
  fill_zero(out.bytes(), out.num_bytes(), out.device());
  scatter_add_rows(buffers.returned_sums.first(handle.num_sent_), buffers.sent_tokens.first(handle.num_sent_), out,
                   stream);
}

std::unique_ptr<PendingOperation> TokenDispatcher::start_counts(DispatchBuffers& buffers, Stream& stream) {
  const std::span<const std::byte> send = std::as_bytes(std::span(buffers.sent_counts));
  const std::span<std::byte> receive = std::as_writable_bytes(std::span(buffers.received_counts));
  return context_.data.start_all_to_all_v({send.data(), send.size()}, counts_bytes_, {receive.data(), receive.size()},
                                          counts_bytes_, stream);
}

std::unique_ptr<PendingOperation> TokenDispatcher::start_payload(DispatchBuffers& buffers, Stream& stream) {
  for (size_t rank = 0; rank < buffers.receive_bytes.size(); ++rank) {
    buffers.receive_bytes[rank] = layout_of(buffers.received_counts[rank], buffers.payload_row_bytes()).num_bytes();
  }
  return start_exchange(buffers.send_message, buffers.receive_message, buffers, stream);
}

std::unique_ptr<PendingOperation> TokenDispatcher::start_exchange(const Tensor& send, Tensor& receive,
                                                                  const DispatchBuffers& buffers, Stream& stream) {
  const ConstBuffer from{send.bytes(), static_cast<size_t>(sum_of(buffers.send_bytes))};
  const Buffer to{receive.bytes(), static_cast<size_t>(sum_of(buffers.receive_bytes))};
  return context_.data.start_all_to_all_v(from, buffers.send_bytes, to, buffers.receive_bytes, stream);
}

void TokenDispatcher::check_received_counts(const DispatchBuffers& buffers) const {
  const DispatchCapacity capacity{.max_tokens = buffers.shape.max_tokens, .top_k = buffers.shape.top_k};
  for (size_t rank = 0; rank < buffers.received_counts.size(); ++rank) {
    check_counts(buffers.received_counts[rank], capacity, static_cast<int>(rank));
  }
}

void TokenDispatcher::count_dispatch(const DispatchBuffers& buffers) {
  auto& wire_bytes = context_.counters.wire_bytes[static_cast<size_t>(Direction::kDispatch)];
  for (size_t rank = 0; rank < buffers.sent_counts.size(); ++rank) {
    const Hop hop = hop_to(static_cast<int>(rank));
    count_payload(buffers.sent_counts[rank], Direction::kDispatch, hop, buffers.payload_row_bytes(), context_.counters);
    wire_bytes[static_cast<size_t>(hop)] += buffers.send_bytes[rank] + counts_bytes_[rank];
  }
}

void TokenDispatcher::count_combine(const DispatchBuffers& buffers) {
  auto& wire_bytes = context_.counters.wire_bytes[static_cast<size_t>(Direction::kCombine)];
  for (size_t rank = 0; rank < buffers.received_counts.size(); ++rank) {
    const Hop hop = hop_to(static_cast<int>(rank));
    count_payload(buffers.received_counts[rank], Direction::kCombine, hop, buffers.combine_row_bytes(),
                  context_.counters);
    wire_bytes[static_cast<size_t>(hop)] += buffers.send_bytes[rank];
  }
}

void TokenDispatcher::enter(const DispatchHandle& handle, const char* phase) {
  context_.data.set_context({.step = step_, .layer = handle.layer_, .phase = phase});
}

}  // namespace skipper
