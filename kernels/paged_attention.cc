#include "kernels/paged_attention.h"

#include "kernels/cpu/kv_panel.h"
#include "kernels/operand_checks.h"

namespace skipper {
namespace {

Shape panels_of(const PagedKvShape& shape) {
  CHECK(shape.block_size > 0 && shape.block_size % kKvPanelPositions == 0) << "paged key/value block of " << shape.block_size;
  return {shape.num_blocks, shape.kv_heads, shape.block_size / kKvPanelPositions, cpu::panel_elements(shape.head_dim)};
}

void check_cache(std::string_view kernel, const PagedKv& cache) {
  check_on_host(kernel, {&cache.k, &cache.v});
  check_floats(kernel, cache.k);
  CHECK(cache.k.shape() == panels_of(cache.shape)) << kernel << ": cache " << cache.k.shape().to_string();
  CHECK(cache.k.shape() == cache.v.shape() && cache.k.dtype() == cache.v.dtype()) << kernel << ": key and value caches differ";
}

}  // namespace

PagedKv empty_paged_kv(const PagedKvShape& shape, DType dtype, Device device) {
  return {shape, Tensor::empty(panels_of(shape), dtype, device), Tensor::empty(panels_of(shape), dtype, device)};
}

size_t paged_kv_bytes(const PagedKvShape& shape, DType dtype) {
  return 2 * static_cast<size_t>(panels_of(shape).num_elements()) * size_of(dtype);
}

void store_kv(const Tensor& k, const Tensor& v, const Tensor& slots, PagedKv& cache, Stream& stream) {
  check_on_host("store_kv", {&k, &v, &slots});
  check_cache("store_kv", cache);
  check_index("store_kv", slots);
  const Shape rows{slots.dim(0), cache.shape.kv_heads, cache.shape.head_dim};
  check_f32("store_kv", k, rows);
  check_f32("store_kv", v, rows);
  cpu::store_kv(k, v, slots, cache, stream.workers());
}

void paged_attention(const PagedAttentionInput& input, const PagedKv& cache, Tensor& out, Stream& stream) {
  check_on_host("paged_attention", {&input.q, &input.sequence_index, &input.positions, &input.block_tables, &out});
  check_cache("paged_attention", cache);
  const Shape& shape = input.q.shape();
  CHECK(shape.rank() == 3 && shape[2] == cache.shape.head_dim) << "paged_attention: q " << shape.to_string();
  CHECK(cache.shape.kv_heads > 0 && shape[1] % cache.shape.kv_heads == 0)
      << "paged_attention: " << shape[1] << " heads do not divide into " << cache.shape.kv_heads << " groups";
  check_f32("paged_attention", input.q, shape);
  check_f32("paged_attention", out, shape);
  for (const Tensor* index : {&input.sequence_index, &input.positions}) {
    check_index("paged_attention", *index);
    CHECK_EQ(index->dim(0), shape[0]) << "paged_attention: one entry per query";
  }
  CHECK(input.block_tables.shape().rank() == 2 && input.block_tables.dtype() == DType::kI32)
      << "paged_attention: block tables " << input.block_tables.shape().to_string();
  cpu::paged_attention(input, cache, out, stream.workers());
}

}  // namespace skipper
