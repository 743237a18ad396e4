#include "model/cuda/step_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "expert_parallel/token_policies.h"

namespace skipper::cuda {
namespace {

using testing::ElementsAre;
using testing::Each;

// Three sequences of a table of four, of which the second has no token: tokens 5, 6 of the first, 0 of the third, 40 of the last.
struct Batch {
  std::vector<int32_t> ids{11, 12, 13, 14}, positions{5, 6, 0, 40}, sequences{0, 0, 2, 3}, slots{37, 38, 64, 8};
  std::vector<int32_t> rotary = std::vector<int32_t>(12, 9), logit_rows{1, 3}, tables = std::vector<int32_t>(16);
  std::vector<uint8_t> classes{0, 1, 2, 0}, levels{1, 1, 0, 3}, phases{0, 0, 0, 1};

  Batch() { std::iota(tables.begin(), tables.end(), 100); }

  BatchInput input() const {
    const auto ints = [](const std::vector<int32_t>& values, const Shape& shape) {
      return Tensor::borrow_const(values.data(), shape, DType::kI32);
    };
    const auto bytes = [](const std::vector<uint8_t>& values) { return Tensor::borrow_const(values.data(), {4}, DType::kU8); };
    BatchInput batch;
    batch.token_ids = ints(ids, {4});
    batch.rotary_positions = ints(rotary, {4, 3});
    batch.positions = ints(positions, {4});
    batch.sequence_index = ints(sequences, {4});
    batch.kv_slots = ints(slots, {4});
    batch.block_tables = ints(tables, {4, 4});
    batch.token_class = bytes(classes);
    batch.level = bytes(levels);
    batch.phase = bytes(phases);
    batch.logit_rows = ints(logit_rows, {2});
    return batch;
  }
};

// A step in host memory that nobody has cleared.
struct HostStep {
  explicit HostStep(const StepShape& shape) : memory(lay_out(shape, nullptr, Device::host()).num_bytes, std::byte{0xee}) {
    tensors = lay_out(shape, memory.data(), Device::host()).tensors;
  }
  std::vector<std::byte> memory;
  StepTensors tensors;
};

std::vector<int32_t> ints(const Tensor& tensor) { return {tensor.span<int32_t>().begin(), tensor.span<int32_t>().end()}; }
std::vector<int> bytes(const Tensor& tensor) { return {tensor.span<uint8_t>().begin(), tensor.span<uint8_t>().end()}; }

TEST(StepInputs, FindsTheShapeOfABatch) {
  const StepShape shape = shape_of(Batch().input(), 16);
  EXPECT_EQ(shape.num_rows, 4);
  EXPECT_EQ(shape.num_logit_rows, 2);
  EXPECT_EQ(shape.num_sequences, 3);
  EXPECT_EQ(shape.max_queries, 2);
  EXPECT_EQ(shape.max_positions, 41);
  EXPECT_EQ(shape.num_blocks, 3);
}

TEST(StepInputs, OfNoTokensHaveNoSequence) {
  BatchInput batch = Batch().input();
  for (Tensor* tensor : {&batch.token_ids, &batch.rotary_positions, &batch.positions, &batch.sequence_index, &batch.kv_slots,
                         &batch.token_class, &batch.level, &batch.phase, &batch.logit_rows}) {
    *tensor = tensor->first(0);
  }
  const StepShape shape = shape_of(batch, 16);
  EXPECT_EQ(shape.num_rows, 0);
  EXPECT_EQ(shape.num_sequences, 0);
  const HostStep step(shape);
  write_step(batch, step.tensors);
  EXPECT_THAT(ints(step.tensors.query_offsets), ElementsAre(0));
}

TEST(StepInputs, KeepOnlySequencesWithTokens) {
  const Batch batch;
  const HostStep step(shape_of(batch.input(), 16));
  write_step(batch.input(), step.tensors);
  EXPECT_THAT(ints(step.tensors.query_offsets), ElementsAre(0, 2, 3, 4));
  EXPECT_THAT(ints(step.tensors.first_position), ElementsAre(5, 0, 40));
  EXPECT_THAT(ints(step.tensors.block_tables), ElementsAre(100, 101, 102, 108, 109, 110, 112, 113, 114));
  EXPECT_THAT(ints(step.tensors.logit_rows.step_token), ElementsAre(1, 3));
  EXPECT_THAT(bytes(step.tensors.logit_rows.token_class), ElementsAre(1, 0));
  EXPECT_THAT(bytes(step.tensors.logit_rows.level), ElementsAre(1, 3));
  EXPECT_THAT(ints(step.tensors.rows.offsets), ElementsAre(0, 4));
  EXPECT_THAT(ints(step.tensors.logit_rows.offsets), ElementsAre(0, 2));
  EXPECT_THAT(ints(step.tensors.usage), Each(0));
}

TEST(StepInputs, PadWithRowsAndSequencesThatDoNothing) {
  const Batch batch;
  const HostStep step({.num_rows = 6, .num_logit_rows = 6, .num_sequences = 6, .num_blocks = 5, .max_positions = 80});
  write_step(batch.input(), step.tensors);
  EXPECT_THAT(ints(step.tensors.token_ids), ElementsAre(11, 12, 13, 14, -1, -1));
  EXPECT_THAT(ints(step.tensors.slots), ElementsAre(37, 38, 64, 8, -1, -1));
  EXPECT_THAT(bytes(step.tensors.rows.token_class), ElementsAre(0, 1, 2, 0, 255, 255));
  EXPECT_THAT(ints(step.tensors.query_offsets), ElementsAre(0, 2, 3, 4, 4, 4, 4));
  EXPECT_THAT(ints(step.tensors.first_position), ElementsAre(5, 0, 40, 0, 0, 0));
  EXPECT_THAT(ints(step.tensors.block_tables.first(1)), ElementsAre(100, 101, 102, 103, 0));
  EXPECT_THAT(ints(step.tensors.block_tables.slice(3, 6)), Each(0));
  EXPECT_THAT(ints(step.tensors.logit_index), ElementsAre(1, 3, -1, -1, -1, -1));
  EXPECT_THAT(bytes(step.tensors.logit_rows.token_class), ElementsAre(1, 0, 255, 255, 255, 255));
  EXPECT_EQ(step.tensors.usage.num_elements(), 6 * kNumGpuUsageColumns);
}

TEST(StepInputs, LieApartAndAligned) {
  const StepShape shape{.num_rows = 3, .num_logit_rows = 1, .num_sequences = 2, .num_blocks = 7};
  const HostStep step(shape);
  const StepTensors& t = step.tensors;
  std::vector<const Tensor*> all{&t.token_ids, &t.rotary, &t.slots, &t.query_offsets, &t.first_position, &t.block_tables,
                                 &t.logit_index, &t.usage};
  for (const RowTensors* rows : {&t.rows, &t.logit_rows}) {
    for (const Tensor* tensor : {&rows->token_class, &rows->level, &rows->phase, &rows->step_token, &rows->offsets}) {
      all.push_back(tensor);
    }
  }
  const std::byte* end = step.memory.data();
  for (const Tensor* tensor : all) {
    EXPECT_EQ((tensor->bytes() - step.memory.data()) % 64, 0);
    EXPECT_GE(tensor->bytes(), end);
    end = tensor->bytes() + tensor->num_bytes();
  }
  EXPECT_LE(end, step.memory.data() + step.memory.size());
}

}  // namespace
}  // namespace skipper::cuda
