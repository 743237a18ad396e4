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
// S = max_tokens · min(world_size, top_k) rows can be sent, N = world_size · max_tokens received, P = N · top_k pairs.
struct DispatchBuffers {
  DispatchBuffers(const DispatchShape& shape, const DispatchConfig& config);

  int64_t payload_row_bytes() const { return shape.hidden_size * static_cast<int64_t>(size_of(config.payload_dtype)); }
  int64_t combine_row_bytes() const { return shape.hidden_size * static_cast<int64_t>(size_of(config.combine_dtype)); }

  DispatchShape shape;
  DispatchConfig config;

  // Sizes of the parts of the exchange under way, by rank.
  std::vector<int64_t> send_bytes;     // [world_size]
  std::vector<int64_t> receive_bytes;  // [world_size]

  // At the source.
  std::vector<DispatchCounts> sent_counts;  // [world_size]
  std::vector<int32_t> last_token;          // [world_size] scratch: last token seen that goes to the rank
  std::vector<int64_t> next_row;            // [world_size] scratch: where the rank's next token is listed
  Tensor payload_rows;                      // [max_tokens, H] payload format
  Tensor sent_tokens;                       // [S] i32, token of each sent row, destination by destination
  Tensor send_message;                      // bytes of all payload messages
  Tensor returned_sums;                     // [S, H] combine format, in the order of sent_tokens

  // At the destination.
  std::vector<DispatchCounts> received_counts;  // [world_size]
  Tensor receive_message;                       // bytes of all payload messages
  Tensor received_rows;                         // [N, H] payload format, source by source
  Tensor pair_offsets;                          // [N + 1] i32, pairs of each received token
  Tensor pair_slots;                            // [P] i32, local expert of each pair
  Tensor pair_weights;                          // [P] f32
  Tensor row_offsets;                           // [max_local_experts + 1] i32, rows of each expert
  Tensor row_index;                             // [P] i32, received token of each expert row
  Tensor row_of_pair;                           // [P] i32, inverse of the sort
  Tensor partial_sums;                          // [N, H] combine format
};

}  // namespace skipper
