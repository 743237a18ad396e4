#include "expert_parallel/cuda/expert_staging.h"

#include <glog/logging.h>

#include <algorithm>

namespace skipper::cuda {
namespace {

constexpr size_t kAlignment = 128;

size_t aligned(size_t num_bytes) { return (num_bytes + kAlignment - 1) / kAlignment * kAlignment; }

Tensor part_of(const Tensor& memory, size_t begin, size_t num_bytes) {
  return memory.slice(static_cast<int64_t>(begin), static_cast<int64_t>(begin + num_bytes));
}

}  // namespace

size_t ExpertStaging::slot_bytes(size_t most_bytes) { return kNumSlots * aligned(most_bytes); }

ExpertStaging::ExpertStaging(size_t most_bytes, Device device)
    : copies_(device),
      slots_{Slot{Tensor::empty({static_cast<int64_t>(aligned(most_bytes))}, DType::kU8, device), StreamEvent(copies_),
                  StreamEvent(copies_)},
             Slot{Tensor::empty({static_cast<int64_t>(aligned(most_bytes))}, DType::kU8, device), StreamEvent(copies_),
                  StreamEvent(copies_)}} {}

int ExpertStaging::add_layer(const ExpertMatricesOnGpu& experts) {
  const int number = num_layers();
  const Tensor& memory = slot_of(number).memory;
  const size_t gate_up_bytes = experts.gate_up.num_host_bytes(), down_bytes = experts.down.num_host_bytes();
  CHECK(gate_up_bytes > 0 && down_bytes > 0) << "a layer without experts on the host";
  CHECK_EQ(gate_up_bytes % kAlignment, 0u);
  layers_.push_back({with_copies(experts.gate_up, part_of(memory, 0, gate_up_bytes)),
                     with_copies(experts.down, part_of(memory, gate_up_bytes, down_bytes))});
  return number;
}

void ExpertStaging::begin_step(int num_staged) {
  CHECK_LE(num_staged, num_layers());
  num_staged_ = num_staged;
  next_ = 0;
  queue_copies_up_to(kNumSlots - 1);
}

const ExpertMatricesOnGpu* ExpertStaging::acquire(int number, Stream& compute) {
  if (number >= num_staged_) return nullptr;
  next_ = std::max(next_, number);  // of layers that the step left out nothing is needed any more
  queue_copies_up_to(number);
  slot_of(number).filled.hold(compute);
  return &layers_[static_cast<size_t>(number)];
}

void ExpertStaging::release(int number, Stream& compute) {
  if (number >= num_staged_) return;
  slot_of(number).released.record(compute);
  queue_copies_up_to(number + kNumSlots);
}

// Copies of one slot follow one another on their stream; each waits for the kernels that read the one before.
void ExpertStaging::queue_copies_up_to(int number) {
  for (; next_ <= std::min(number, num_staged_ - 1); ++next_) {
    Slot& slot = slot_of(next_);
    slot.released.hold(copies_);
    const ExpertMatricesOnGpu& staged = layers_[static_cast<size_t>(next_)];
    queue_copy(staged.gate_up);
    queue_copy(staged.down);
    slot.filled.record(copies_);
  }
}

void ExpertStaging::queue_copy(const DeviceMatrices& staged) {
  const Tensor& source = staged.host_memory.tensor();
  Tensor target = staged.copies;
  copy_bytes({source.bytes(), source.device(), target.bytes(), target.device(), source.num_bytes()}, copies_);
  num_copied_bytes_ += source.num_bytes();
}

}  // namespace skipper::cuda
