#include "expert_parallel/dispatch_buffers.h"

#include <algorithm>

namespace skipper {

DispatchBuffers::DispatchBuffers(const DispatchShape& dispatch_shape, const DispatchConfig& dispatch_config)
    : shape(dispatch_shape), config(dispatch_config) {
  config.validate();
  const auto world_size = static_cast<size_t>(shape.world_size);
  const int64_t rows_per_token = sends_row_per_pair() ? shape.top_k : std::min<int64_t>(shape.world_size, shape.top_k);
  const int64_t max_sent = shape.max_tokens * rows_per_token;
  const int64_t max_sent_pairs = shape.max_tokens * shape.top_k;
  const int64_t max_received = capacity().max_rows * shape.world_size;
  const int64_t max_pairs = max_sent_pairs * shape.world_size;
  const auto message_bytes = [&](int64_t num_tokens, int64_t num_pairs) {
    return PayloadLayout{num_tokens, num_pairs, payload_row_bytes()}.num_bytes();
  };

  send_bytes.resize(world_size);
  receive_bytes.resize(world_size);

  sent_counts.resize(world_size);
  last_token.resize(world_size);
  first_sent_row.resize(world_size);
  sent_tokens = Tensor::empty({max_sent}, DType::kI32);
  const int64_t coded_row = row_bytes(config.payload_format, shape.hidden_size);
  coded_tokens = Tensor::empty({is_coded(config.payload_format) ? shape.max_tokens : 0, coded_row}, DType::kU8);
  send_message = Tensor::empty({message_bytes(max_sent, max_sent_pairs)}, DType::kU8);
  returned_sums = Tensor::empty({max_sent, shape.hidden_size}, config.combine_dtype);
  returned_offsets = Tensor::empty({shape.max_tokens + 1}, DType::kI32);
  returned_index = Tensor::empty({max_sent}, DType::kI32);

  received_counts.resize(world_size);
  receive_message = Tensor::empty({message_bytes(max_received, max_pairs)}, DType::kU8);
  received_rows = Tensor::empty({max_received, shape.hidden_size}, received_dtype(config.payload_format));
  pair_offsets = Tensor::empty({max_received + 1}, DType::kI32);
  pair_slots = Tensor::empty({max_pairs}, DType::kI32);
  pair_weights = Tensor::empty({max_pairs}, DType::kF32);
  row_offsets = Tensor::empty({shape.max_local_experts + 1}, DType::kI32);
  row_index = Tensor::empty({max_pairs}, DType::kI32);
  row_of_pair = Tensor::empty({max_pairs}, DType::kI32);
  partial_sums = Tensor::empty({max_received, shape.hidden_size}, config.combine_dtype);
}

DispatchBuffers::Position DispatchBuffers::received_from(size_t source) const {
  Position position;
  for (size_t rank = 0; rank < source; ++rank) {
    position.row += received_counts[rank].num_tokens();
    position.pair += received_counts[rank].pairs;
  }
  return position;
}

PayloadParts DispatchBuffers::received_parts(const Position& position) {
  const int64_t received_row_bytes = shape.hidden_size * static_cast<int64_t>(size_of(received_rows.dtype()));
  return {.rows = received_rows.bytes() + position.row * received_row_bytes,
          .pair_counts = pair_offsets.bytes() + (position.row + 1) * 4,
          .slots = pair_slots.bytes() + position.pair * 4,
          .weights = pair_weights.bytes() + position.pair * 4};
}

}  // namespace skipper
