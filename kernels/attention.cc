#include "kernels/attention.h"

#include "kernels/operand_checks.h"

namespace skipper {

void packed_attention(const PackedAttentionInput& input, Tensor& out, Stream& stream) {
  check_on_host("packed_attention", {&input.q, &input.k, &input.v, &input.offsets, &out});
  check_index("packed_attention", input.offsets);
  CHECK_GE(input.offsets.dim(0), 1) << "packed_attention: offsets need S + 1 entries";
  const Shape& shape = input.q.shape();
  CHECK_EQ(shape.rank(), 3) << "packed_attention: q " << shape.to_string();
  for (const Tensor* tensor : {&input.q, &input.k, &input.v}) check_f32("packed_attention", *tensor, shape);
  check_f32("packed_attention", out, shape);
  cpu::packed_attention(input, out, stream.workers());
}

}  // namespace skipper
