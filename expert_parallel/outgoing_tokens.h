// The source's half of a dispatch: which token goes to which rank, and the messages that carry them.
#pragma once

#include <span>

#include "expert_parallel/dispatch_buffers.h"
#include "expert_parallel/expert_placement.h"
#include "expert_parallel/routing.h"
#include "expert_parallel/token_policies.h"
#include "tensor/device_runtime.h"
#include "tensor/tensor.h"

namespace skipper {

struct OutgoingTokens {
  const Tensor& hidden;               // [T, H] f32, rounded to the payload format on its way out
  const Routing& routing;             // [T, top_k], after skipping
  const Tensor& routed_ids;           // [T, top_k] i32, before skipping
  const TokenPolicies& policies;      // [T]; rows sent and saved are added to its usage
  std::span<const ExpertHome> homes;  // of the layer's experts, as the rank sees them: its shadows included
};

// Fills sent_counts, sent_tokens, send_bytes and the returned rows of each token.
void plan_outgoing(const OutgoingTokens& tokens, DispatchBuffers& buffers);

// Writes the payload messages of all other ranks to send_message, as planned, and coded formats' coded_tokens.
void pack_outgoing(const OutgoingTokens& tokens, DispatchBuffers& buffers, Stream& stream);

// Writes the rank's own tokens, rounded like the others', to where unpack_incoming() expects them. After pack_outgoing(); needs
// received_counts.
void place_own_tokens(const OutgoingTokens& tokens, DispatchBuffers& buffers, Stream& stream);

}  // namespace skipper
