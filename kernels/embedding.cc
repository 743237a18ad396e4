#include "kernels/embedding.h"

#include "kernels/operand_checks.h"

namespace skipper {

void embedding(const Tensor& ids, const Tensor& table, Tensor& y, Stream& stream) {
  check_on_host("embedding", {&ids, &table, &y});
  check_index("embedding", ids);
  check_floats("embedding", table);
  CHECK_EQ(table.shape().rank(), 2) << "embedding: table " << table.shape().to_string();
  check_f32("embedding", y, {ids.dim(0), table.dim(1)});
  cpu::embedding(ids, table, y, stream.workers());
}

}  // namespace skipper
