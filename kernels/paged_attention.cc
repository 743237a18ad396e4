#include "kernels/paged_attention.h"

#include "kernels/operand_checks.h"

namespace skipper {
namespace {

void check_cache(std::string_view kernel, const PagedKv& cache) {
  check_on_host(kernel, {&cache.k, &cache.v});
  check_floats(kernel, cache.k);
  CHECK_EQ(cache.k.shape().rank(), 4) << kernel << ": cache " << cache.k.shape().to_string();
  CHECK(cache.k.shape() == cache.v.shape() && cache.k.dtype() == cache.v.dtype()) << kernel << ": key and value caches differ";
}

}  // namespace

void store_kv(const Tensor& k, const Tensor& v, const Tensor& slots, PagedKv& cache, Stream&) {
  check_on_host("store_kv", {&k, &v, &slots});
  check_cache("store_kv", cache);
  check_index("store_kv", slots);
  const Shape rows{slots.dim(0), cache.k.dim(2), cache.k.dim(3)};
  check_f32("store_kv", k, rows);
  check_f32("store_kv", v, rows);
  cpu::store_kv(k, v, slots, cache);
}

void paged_attention(const PagedAttentionInput& input, const PagedKv& cache, Tensor& out, Stream&) {
  check_on_host("paged_attention", {&input.q, &input.sequence_index, &input.positions, &input.block_tables, &out});
  check_cache("paged_attention", cache);
  const Shape& shape = input.q.shape();
  CHECK(shape.rank() == 3 && shape[2] == cache.k.dim(3)) << "paged_attention: q " << shape.to_string();
  CHECK(cache.k.dim(2) > 0 && shape[1] % cache.k.dim(2) == 0)
      << "paged_attention: " << shape[1] << " heads do not divide into " << cache.k.dim(2) << " groups";
  check_f32("paged_attention", input.q, shape);
  check_f32("paged_attention", out, shape);
  for (const Tensor* index : {&input.sequence_index, &input.positions}) {
    check_index("paged_attention", *index);
    CHECK_EQ(index->dim(0), shape[0]) << "paged_attention: one entry per query";
  }
  CHECK(input.block_tables.shape().rank() == 2 && input.block_tables.dtype() == DType::kI32)
      << "paged_attention: block tables " << input.block_tables.shape().to_string();
  cpu::paged_attention(input, cache, out);
}

}  // namespace skipper
