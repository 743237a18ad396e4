#include "expert_parallel/cuda/host_experts.h"

#include <glog/logging.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/cuda/host_rows.h"
#include "kernels/expert_products.h"

namespace skipper::cuda {
namespace {

// As many as decode steps of many sequences have, and as tiles of the CPU need to be fast.
constexpr int64_t kMostRowsPerPass = 1024;
constexpr int64_t kMostExperts = 1024;

Tensor on_gpu(const std::vector<int32_t>& values, Device device) {
  Tensor copy = Tensor::empty({static_cast<int64_t>(values.size())}, DType::kI32, device);
  Stream stream(device);
  copy_bytes({reinterpret_cast<const std::byte*>(values.data()), Device::host(), copy.bytes(), device, copy.num_bytes()}, stream);
  stream.synchronize();
  return copy;
}

int64_t rows_per_pass(const HostExpertShape& shape) { return std::clamp<int64_t>(shape.max_rows, 1, kMostRowsPerPass); }

}  // namespace

HostExperts::HostExperts(const HostExpertShape& shape, ThreadPool& workers, Stream& stream)
    : host_(workers),
      collected_(stream),
      offsets_({kMostExperts + 1}, DType::kI32),
      rows_({rows_per_pass(shape), shape.hidden_size}, DType::kBF16),
      results_({rows_per_pass(shape), shape.hidden_size}, DType::kF32),
      row_index_(Tensor::empty({rows_per_pass(shape)}, DType::kI32)),
      pass_offsets_(Tensor::empty({kMostExperts + 1}, DType::kI32)),
      activated_(Tensor::empty({rows_per_pass(shape), shape.intermediate_size}, DType::kF32)) {
  std::iota(row_index_.data<int32_t>(), row_index_.data<int32_t>() + row_index_.num_elements(), 0);
}

int HostExperts::add_layer(HostExpertMatrices experts) {
  CHECK(!experts.empty() && experts.slots.size() <= static_cast<size_t>(kMostExperts));
  CHECK(experts.gate_up.size() == experts.slots.size() && experts.down.size() == experts.slots.size());
  const Device device = collected_.device();
  Tensor slots = on_gpu(experts.slots, device);
  layers_.push_back({std::move(experts), std::move(slots)});
  return static_cast<int>(layers_.size()) - 1;
}

void HostExperts::collect(int number, const SortedExpertRows& sorted, Stream& stream) {
  collect_pass(layers_.at(static_cast<size_t>(number)), sorted, 0, stream);
}

void HostExperts::compute(int number, const SortedExpertRows& sorted, Stream& stream) {
  const Layer& layer = layers_.at(static_cast<size_t>(number));
  const int64_t most = rows_.tensor().dim(0);
  for (int64_t first = 0;; first += most) {
    collected_.synchronize();
    const int64_t num_rows = offsets_.tensor().data<int32_t>()[layer.experts.slots.size()];
    Tensor results = results_.tensor().first(std::clamp<int64_t>(num_rows - first, 0, most));
    compute_pass(layer, first, results);
    return_host_rows({sorted.row_offsets, layer.slots}, results, first, sorted.results, stream);
    if (first + most >= num_rows) return;
    // Also waits, in stream order, until the results of this pass have left their memory.
    collect_pass(layer, sorted, first + most, stream);
  }
}

void HostExperts::collect_pass(const Layer& layer, const SortedExpertRows& sorted, int64_t first, Stream& stream) {
  Tensor offsets = offsets_.tensor().first(layer.slots.num_elements() + 1);
  collect_host_rows({sorted.row_offsets, layer.slots}, sorted.rows, first, {offsets, rows_.tensor()}, stream);
  collected_.record(stream);
}

void HostExperts::compute_pass(const Layer& layer, int64_t first, Tensor& results) {
  const int64_t num_rows = results.dim(0);
  if (num_rows == 0) return;
  Tensor offsets = pass_offsets_.first(layer.slots.num_elements() + 1);
  for (int64_t i = 0; i < offsets.num_elements(); ++i) {
    const int64_t offset = offsets_.tensor().data<int32_t>()[i];
    offsets.data<int32_t>()[i] = static_cast<int32_t>(std::clamp<int64_t>(offset - first, 0, num_rows));
  }
  const Tensor row_index = row_index_.first(num_rows);
  Tensor activated = activated_.first(num_rows);
  skipper::expert_gate_up({rows_.tensor(), row_index, offsets}, layer.experts.gate_up, activated, host_);
  skipper::expert_down({activated, offsets}, layer.experts.down, results, host_);
}

}  // namespace skipper::cuda
