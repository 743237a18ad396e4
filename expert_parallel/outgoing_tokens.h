// The source's half of a dispatch: which token goes to which rank, and the messages that carry them.
#pragma once

#include <span>

#include "expert_parallel/dispatch_buffers.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/routing.h"
#include "tensor/tensor.h"

namespace skipper {

struct OutgoingTokens {
  const Tensor& rows;                 // [T, H] hidden rows in the payload format
  const Routing& routing;             // [T, top_k], after skipping
  const Tensor& routed_ids;           // [T, top_k] i32, before skipping
  const Tensor& token_class;          // [T] u8
  std::span<const ExpertHome> homes;  // of the layer's experts
};

// Fills sent_counts, sent_tokens and send_bytes of `buffers`; needs no rows yet.
void plan_outgoing(const OutgoingTokens& tokens, DispatchBuffers& buffers);

// Writes the payload messages of all destinations to send_message, as planned.
void pack_outgoing(const OutgoingTokens& tokens, DispatchBuffers& buffers);

}  // namespace skipper
