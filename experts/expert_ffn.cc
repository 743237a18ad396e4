#include "experts/expert_ffn.h"

#include <glog/logging.h>

#include <algorithm>

#include "kernels/expert_products.h"

namespace skipper {

namespace {

int64_t most_local_experts(const ExpertStore& store) {
  int most = 0;
  for (int layer = 0; layer < store.num_layers(); ++layer) most = std::max(most, store.num_local_experts(layer));
  return most;
}

// row_offsets as seen by rows [begin, end) alone: experts outside of the pass get no rows.
void cut_offsets(const Tensor& row_offsets, int64_t begin, int64_t end, Tensor& pass_offsets) {
  const auto offsets = row_offsets.span<int32_t>();
  const auto cut = pass_offsets.span<int32_t>();
  for (size_t e = 0; e < offsets.size(); ++e) {
    cut[e] = static_cast<int32_t>(std::clamp<int64_t>(offsets[e], begin, end) - begin);
  }
}

}  // namespace

ExpertScratch::ExpertScratch(const ExpertStore& store, int64_t max_rows)
    : max_rows_per_pass(max_rows),
      activated(Tensor::empty({max_rows, store.intermediate_size()}, DType::kF32)),
      pass_offsets(Tensor::empty({most_local_experts(store) + 1}, DType::kI32)) {
  CHECK_GT(max_rows, 0);
}

ExpertFfn::ExpertFfn(const ExpertStore& store) : store_(store) {}

struct ExpertFfn::Pass {
  int layer;
  const Tensor& tokens;
  Tensor row_index;    // of the pass's rows
  Tensor row_offsets;  // within the pass
};

void ExpertFfn::forward(int layer, const ExpertBatch& batch, ExpertScratch& scratch, Tensor& out, Stream& stream) const {
  const auto start = std::chrono::steady_clock::now();
  const int64_t num_rows = batch.row_index.num_elements();
  const int64_t num_offsets = store_.num_local_experts(layer) + 1;
  CHECK_EQ(batch.row_offsets.num_elements(), num_offsets);
  CHECK_EQ(out.dim(0), num_rows);
  // The host reads the offsets here; a device back end will cut its passes on the device.
  CHECK(!out.on_gpu());
  for (int64_t begin = 0; begin < num_rows; begin += scratch.max_rows_per_pass) {
    const int64_t end = std::min(begin + scratch.max_rows_per_pass, num_rows);
    Tensor pass_offsets = scratch.pass_offsets.first(num_offsets);
    cut_offsets(batch.row_offsets, begin, end, pass_offsets);
    Tensor pass_out = out.slice(begin, end);
    forward_pass({layer, batch.tokens, batch.row_index.slice(begin, end), pass_offsets}, scratch, pass_out, stream);
  }
  time_ += std::chrono::steady_clock::now() - start;
}

void ExpertFfn::forward_pass(const Pass& pass, ExpertScratch& scratch, Tensor& out, Stream& stream) const {
  Tensor activated = scratch.activated.first(pass.row_index.num_elements());
  const auto slots = store_.slots(pass.layer);
  if (observer_) {
    observer_({MatrixInput::kGateUp, pass.layer, pass.tokens, slots, &pass.row_index, &pass.row_offsets}, stream);
  }
  expert_gate_up({pass.tokens, pass.row_index, pass.row_offsets}, store_.gate_up(pass.layer), activated, stream);
  if (observer_) observer_({MatrixInput::kDown, pass.layer, activated, slots, nullptr, &pass.row_offsets}, stream);
  expert_down({activated, pass.row_offsets}, store_.down(pass.layer), out, stream);
}

}  // namespace skipper
