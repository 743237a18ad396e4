// The destination's half of a dispatch: reads the messages of all ranks and sorts their pairs by local expert.
#pragma once

#include <cstdint>

#include "expert_parallel/dispatch_buffers.h"
#include "tensor/device_runtime.h"

namespace skipper {

struct IncomingTokens {
  int64_t num_tokens = 0;
  int64_t num_pairs = 0;
  int num_local_experts = 0;
};

// Reads receive_message, as announced by received_counts, into received_rows, pair_offsets, pair_slots and pair_weights,
// source by source; the rank's own tokens are there already (place_own_tokens). Throws CommError naming the source when pair
// counts do not add up or a slot does not exist here.
void unpack_incoming(const IncomingTokens& tokens, DispatchBuffers& buffers, Stream& stream);

// Fills row_offsets, row_index and row_of_pair: a stable counting sort of the pairs by their slot.
void sort_by_expert(const IncomingTokens& tokens, DispatchBuffers& buffers);

}  // namespace skipper
