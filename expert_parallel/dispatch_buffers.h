// All memory that the dispatch and combine of one micro-batch need, allocated once.
#pragma once

#include <cstdint>
#include <vector>

#include "expert_parallel/dispatch_config.h"
#include "expert_parallel/dispatch_message.h"
#include "tensor/tensor.h"

namespace skipper {

struct DispatchShape {
  int64_t max_tokens = 0;  // tokens of one rank in one micro-batch
  int64_t hidden_size = 0;
  int64_t top_k = 0;
  int world_size = 1;
  int max_local_experts = 0;
};

// Several micro-batches may be in flight, each with buffers of its own. Sized for the worst case, all tokens of all ranks
// coming here; memory that no batch ever reaches is never touched and so costs no page.
// S = max_tokens · min(world_size, top_k) rows can be sent, N = world_size · max_tokens received, P = N · top_k pairs; with a row
// per pair S = max_tokens · top_k, N = P = world_size · S.
struct DispatchBuffers {
  DispatchBuffers(const DispatchShape& shape, const DispatchConfig& config);

  // What a row takes in a message: nothing where rows do not travel (DispatchConfig::payload).
  int64_t payload_row_bytes() const { return config.rows_travel() ? row_bytes(config.payload_format, shape.hidden_size) : 0; }
  int64_t combine_row_bytes() const {
    return config.rows_travel() ? shape.hidden_size * static_cast<int64_t>(size_of(config.combine_dtype)) : 0;
  }
  // One row of the token for each of its experts, however many of them a rank has.
  bool sends_row_per_pair() const { return config.sum_place == SumPlace::kSource; }
  // What each rank may announce.
  DispatchCapacity capacity() const {
    return {.max_rows = shape.max_tokens * (sends_row_per_pair() ? shape.top_k : 1), .top_k = shape.top_k};
  }
  bool is_own(size_t rank) const { return static_cast<int>(rank) == own_rank; }

  // Where the tokens of a source begin among all received ones.
  struct Position {
    int64_t row = 0;
    int64_t pair = 0;
  };
  Position received_from(size_t source) const;
  // The place of a source's tokens in received_rows, pair_offsets, pair_slots and pair_weights. Its pair counts are where the
  // offsets after its tokens will be.
  PayloadParts received_parts(const Position& position);

  DispatchShape shape;
  DispatchConfig config;
  int own_rank = 0;  // set by the dispatcher

  // Sizes of the parts of the exchange under way, by rank; nothing for the own rank.
  std::vector<int64_t> send_bytes;     // [world_size]
  std::vector<int64_t> receive_bytes;  // [world_size]

  // At the source. The rank's own tokens are the last of the sent rows and in no message.
  std::vector<DispatchCounts> sent_counts;  // [world_size]
  std::vector<int32_t> last_token;          // [world_size] scratch: last token seen that goes to the rank
  std::vector<int64_t> first_sent_row;      // [world_size] where the rank's tokens begin in sent_tokens
  Tensor sent_tokens;                       // [S] i32, token of each sent row, destination by destination
  Tensor coded_tokens;                      // [max_tokens, payload row] u8, each token once; of the coded formats alone
  Tensor send_message;                      // bytes of the payload messages to the other ranks
  Tensor returned_sums;                     // [S, H] combine format, in the order of sent_tokens
  Tensor returned_offsets;                  // [max_tokens + 1] i32, returned rows of each token
  Tensor returned_index;                    // [S] i32, those rows in the order of their ranks; of the router with a row per pair

  // At the destination.
  std::vector<DispatchCounts> received_counts;  // [world_size]
  Tensor receive_message;                       // bytes of the payload messages of the other ranks
  Tensor received_rows;                         // [N, H] bf16 or f32, source by source
  Tensor pair_offsets;                          // [N + 1] i32, pairs of each received token
  Tensor pair_slots;                            // [P] i32, local expert of each pair
  Tensor pair_weights;                          // [P] f32
  Tensor row_offsets;                           // [max_local_experts + 1] i32, rows of each expert
  Tensor row_index;                             // [P] i32, received token of each expert row
  Tensor row_of_pair;                           // [P] i32, inverse of the sort
  Tensor partial_sums;                          // [N, H] combine format, for the other ranks
};

}  // namespace skipper
