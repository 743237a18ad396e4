#include "cluster/step_plan.h"

namespace skipper {
namespace {

constexpr uint32_t kPlanMagic = 0x374e4c50;  // "PLN7": changes with the layout below
constexpr size_t kMinRankBytes = 3 * sizeof(uint64_t);
constexpr size_t kMinSequenceBytes = sizeof(uint64_t) + 2 * sizeof(int32_t) + 2 * sizeof(uint8_t) + sizeof(uint64_t);

void encode(const ForwardShape& shape, ByteWriter& writer) {
  writer.value(shape.most_rows);
  writer.value(shape.most_logit_rows);
  writer.value<uint8_t>(shape.is_decode ? 1 : 0);
  writer.value(shape.slot_rows);
}

ForwardShape decode_shape(ByteReader& reader) {
  ForwardShape shape;
  shape.most_rows = reader.value<int32_t>();
  shape.most_logit_rows = reader.value<int32_t>();
  shape.is_decode = reader.value<uint8_t>() != 0;
  shape.slot_rows = reader.value<int32_t>();
  return shape;
}

void encode(const ExpertOrder& order, ByteWriter& writer) {
  writer.value(order.version);
  writer.value(order.policy);
  writer.value(order.staged_version);
  writer.value(order.staged_policy);
  writer.value(order.extra_bytes);
  writer.value<uint8_t>(order.is_freeing ? 1 : 0);
  writer.value<uint8_t>(order.mends ? 1 : 0);
}

ExpertOrder decode_order(ByteReader& reader) {
  ExpertOrder order;
  order.version = reader.value<uint32_t>();
  order.policy = reader.value<uint16_t>();
  order.staged_version = reader.value<uint32_t>();
  order.staged_policy = reader.value<uint16_t>();
  order.extra_bytes = reader.value<uint64_t>();
  order.is_freeing = reader.value<uint8_t>() != 0;
  order.mends = reader.value<uint8_t>() != 0;
  return order;
}

void encode(const SequenceStep& sequence, ByteWriter& writer) {
  writer.value(sequence.sequence_id);
  writer.value(sequence.start);
  writer.value(sequence.num_tokens);
  writer.value(sequence.level);
  writer.value<uint8_t>(sequence.sample ? 1 : 0);
  writer.values(sequence.new_blocks);
}

SequenceStep decode_sequence(ByteReader& reader) {
  SequenceStep sequence;
  sequence.sequence_id = reader.value<uint64_t>();
  sequence.start = reader.value<int32_t>();
  sequence.num_tokens = reader.value<int32_t>();
  sequence.level = reader.value<uint8_t>();
  sequence.sample = reader.value<uint8_t>() != 0;
  sequence.new_blocks = reader.values<int32_t>();
  return sequence;
}

}  // namespace

int64_t RankPlan::num_tokens() const {
  int64_t total = 0;
  for (const SequenceStep& sequence : sequences) total += sequence.num_tokens;
  return total;
}

void encode(const StepPlan& plan, std::vector<std::byte>& out) {
  ByteWriter writer(out);
  writer.value(kPlanMagic);
  writer.value(plan.step);
  writer.value(plan.kind);
  writer.value(plan.level_table_version);
  writer.values(plan.level_table);
  writer.value(plan.placement_version);
  writer.value(plan.experts);
  encode(plan.expert_order, writer);
  writer.text(plan.posted_plan);
  writer.value(plan.guard_term);
  encode(plan.shape, writer);
  writer.value<uint64_t>(plan.ranks.size());
  for (const RankPlan& rank : plan.ranks) {
    writer.values(rank.released);
    writer.values(rank.admission_bytes);
    writer.value<uint64_t>(rank.sequences.size());
    for (const SequenceStep& sequence : rank.sequences) encode(sequence, writer);
  }
}

StepPlan decode_step_plan(std::span<const std::byte> bytes) {
  ByteReader reader(bytes, "step plan");
  if (reader.value<uint32_t>() != kPlanMagic) {
    throw CommError("malformed step plan: wrong magic; do all ranks run the same build?");
  }
  StepPlan plan;
  plan.step = reader.value<int64_t>();
  plan.kind = reader.value<StepKind>();
  plan.level_table_version = reader.value<uint32_t>();
  plan.level_table = reader.values<std::byte>();
  plan.placement_version = reader.value<uint32_t>();
  plan.experts = reader.value<ExpertSet>();
  plan.expert_order = decode_order(reader);
  plan.posted_plan = reader.text();
  plan.guard_term = reader.value<uint32_t>();
  plan.shape = decode_shape(reader);
  plan.ranks.resize(reader.count(kMinRankBytes));
  for (RankPlan& rank : plan.ranks) {
    rank.released = reader.values<uint64_t>();
    rank.admission_bytes = reader.values<uint64_t>();
    rank.sequences.resize(reader.count(kMinSequenceBytes));
    for (SequenceStep& sequence : rank.sequences) sequence = decode_sequence(reader);
  }
  reader.expect_end();
  return plan;
}

}  // namespace skipper
