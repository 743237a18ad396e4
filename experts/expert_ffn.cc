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
  Tensor row_offsets;  // within the pass, of the range's slots
  const SlotRange& range;
};

// One call of forward().
struct ExpertFfn::Work {
  int layer;
  const ExpertBatch& batch;
  ExpertScratch& scratch;
  Tensor& out;
  Stream& stream;
};

void ExpertFfn::forward(int layer, const ExpertBatch& batch, ExpertScratch& scratch, Tensor& out, Stream& stream) const {
  const auto start = std::chrono::steady_clock::now();
  const int num_slots = store_.num_local_experts(layer);
  CHECK_EQ(batch.row_offsets.num_elements(), num_slots + 1);
  CHECK_EQ(out.dim(0), batch.row_index.num_elements());
  // The host reads the offsets here; a device back end will cut its passes on the device.
  CHECK(!out.on_gpu());
  const Work work{layer, batch, scratch, out, stream};
  if (residence_ == nullptr) {
    forward_slots(work, slots_in_memory(layer, 0, num_slots));
  } else {
    forward_through_residence(work);
  }
  time_ += std::chrono::steady_clock::now() - start;
  if (output_observer_) output_observer_(layer, batch, out, stream);
}

ExpertFfn::SlotRange ExpertFfn::slots_in_memory(int layer, int32_t begin, int32_t end) const {
  const auto first = static_cast<size_t>(begin), count = static_cast<size_t>(end - begin);
  return {begin, end, store_.gate_up(layer).subspan(first, count), store_.down(layer).subspan(first, count)};
}

// While the disk reads, what lies in memory is computed; then each expert as it comes.
void ExpertFfn::forward_through_residence(const Work& work) const {
  const std::span<const int32_t> offsets = work.batch.row_offsets.span<int32_t>();
  const std::span<const ExpertSlot> slots = store_.slots(work.layer);
  used_.clear();
  on_disk_.clear();
  for (size_t slot = 0; slot < slots.size(); ++slot) {
    if (offsets[slot] == offsets[slot + 1]) continue;
    used_.push_back(static_cast<int32_t>(slot));
    if (slots[slot].tier == ExpertTier::kDisk) on_disk_.push_back(static_cast<int32_t>(slot));
  }
  residence_->begin({work.layer, on_disk_, used_, work.batch.tokens}, work.stream);
  int32_t begin = 0;
  for (const int32_t slot : on_disk_) {
    forward_slots(work, slots_in_memory(work.layer, begin, slot));
    begin = slot + 1;
  }
  forward_slots(work, slots_in_memory(work.layer, begin, static_cast<int32_t>(slots.size())));
  for (auto given = residence_->next(); !given.empty(); given = residence_->next()) {
    forward_given(work, given);
    residence_->release();
  }
}

// Experts between which no other has rows run together: those of a token are mostly such.
void ExpertFfn::forward_given(const Work& work, std::span<const ResidentExpert> given) const {
  const int32_t* offsets = work.batch.row_offsets.data<int32_t>();
  for (size_t first = 0; first < given.size();) {
    size_t last = first;
    while (last + 1 < given.size() && offsets[given[last].slot + 1] == offsets[given[last + 1].slot]) ++last;
    const int32_t begin = given[first].slot, end = given[last].slot + 1;
    gate_up_.assign(static_cast<size_t>(end - begin), {});
    down_.assign(static_cast<size_t>(end - begin), {});
    for (const ResidentExpert& expert : given.subspan(first, last + 1 - first)) {
      gate_up_[static_cast<size_t>(expert.slot - begin)] = expert.matrices.gate_up;
      down_[static_cast<size_t>(expert.slot - begin)] = expert.matrices.down;
    }
    forward_slots(work, {begin, end, gate_up_, down_});
    first = last + 1;
  }
}

void ExpertFfn::forward_slots(const Work& work, const SlotRange& range) const {
  const int32_t* offsets = work.batch.row_offsets.data<int32_t>();
  const int64_t first_row = offsets[range.begin], last_row = offsets[range.end];
  const Tensor range_offsets = work.batch.row_offsets.slice(range.begin, range.end + 1);
  for (int64_t begin = first_row; begin < last_row; begin += work.scratch.max_rows_per_pass) {
    const int64_t end = std::min(begin + work.scratch.max_rows_per_pass, last_row);
    Tensor pass_offsets = work.scratch.pass_offsets.first(range_offsets.num_elements());
    cut_offsets(range_offsets, begin, end, pass_offsets);
    Tensor pass_out = work.out.slice(begin, end);
    forward_pass({work.layer, work.batch.tokens, work.batch.row_index.slice(begin, end), pass_offsets, range}, work.scratch,
                 pass_out, work.stream);
  }
}

void ExpertFfn::forward_pass(const Pass& pass, ExpertScratch& scratch, Tensor& out, Stream& stream) const {
  Tensor activated = scratch.activated.first(pass.row_index.num_elements());
  const SlotRange& range = pass.range;
  const auto slots = store_.slots(pass.layer).subspan(static_cast<size_t>(range.begin), range.gate_up.size());
  if (observer_) {
    observer_({MatrixInput::kGateUp, pass.layer, pass.tokens, slots, &pass.row_index, &pass.row_offsets}, stream);
  }
  expert_gate_up({pass.tokens, pass.row_index, pass.row_offsets}, range.gate_up, activated, stream);
  if (observer_) observer_({MatrixInput::kDown, pass.layer, activated, slots, nullptr, &pass.row_offsets}, stream);
  expert_down({activated, pass.row_offsets}, range.down, out, stream);
}

}  // namespace skipper
