#include "kernels/attention.h"

#include <vector>

#include "kernels/cpu/attention_rows.h"

namespace skipper::cpu {
namespace {

// Sequence rows [begin, end), whose panels start at `first_panel`.
struct PackedSequence {
  int64_t begin;
  int64_t end;
  int64_t first_panel;
};

// At most kRowsOfTask queries of one sequence.
struct QueryBlock {
  size_t sequence;
  int64_t begin;
  int64_t end;
};

// What to do for each head; kept by the calling thread between calls.
struct AttentionPlan {
  std::vector<PackedSequence> sequences;
  std::vector<QueryBlock> blocks;
  int64_t num_panels = 0;
};

const AttentionPlan& plan(const Tensor& offsets) {
  static thread_local AttentionPlan plan;
  plan.sequences.clear();
  plan.blocks.clear();
  plan.num_panels = 0;
  const int32_t* offset = offsets.data<int32_t>();
  for (int64_t s = 0; s + 1 < offsets.dim(0); ++s) {
    CHECK_LE(offset[s], offset[s + 1]) << "packed_attention: offsets descend at sequence " << s;
    const PackedSequence sequence{offset[s], offset[s + 1], plan.num_panels};
    for (int64_t begin = sequence.begin; begin < sequence.end; begin += kRowsOfTask) {
      plan.blocks.push_back({plan.sequences.size(), begin, std::min(begin + kRowsOfTask, sequence.end)});
    }
    plan.num_panels += (sequence.end - sequence.begin + kPanelPositions - 1) / kPanelPositions;
    plan.sequences.push_back(sequence);
  }
  return plan;
}

// The panels of one head in all sequences; memory of the calling thread, grown to the largest head seen.
struct HeadPanels {
  float* keys;
  float* values;
};

HeadPanels head_panels(int64_t num_elements) {
  static thread_local Tensor memory;
  if (!memory.defined() || memory.dim(1) < num_elements) memory = Tensor::empty({2, num_elements}, DType::kF32);
  return {memory.row<float>(0), memory.row<float>(1)};
}

struct PackedView {
  const float* k;
  const float* v;
  int64_t panel_stride;

  [[gnu::always_inline]] const float* keys(int64_t panel) const { return k + panel * panel_stride; }
  [[gnu::always_inline]] const float* values(int64_t panel) const { return v + panel * panel_stride; }
};

// One head of all sequences: panels first, then all its queries.
class HeadAttention {
 public:
  HeadAttention(const PackedAttentionInput& input, const AttentionPlan& plan, int64_t head, Tensor& out)
      : input_(input), plan_(plan), head_dim_(input.q.dim(2)), first_(head * head_dim_), out_(out),
        panel_stride_(panel_elements(head_dim_)), panels_(head_panels(plan.num_panels * panel_stride_)) {}

  // The keys and values of a query block: kRowsOfTask is a multiple of a panel.
  void pack(const QueryBlock& block) const {
    const PackedSequence& sequence = plan_.sequences[block.sequence];
    const auto write = kv_writer<float>();
    for (int64_t row = block.begin; row < block.end; ++row) {
      const int64_t position = row - sequence.begin;
      const int64_t panel = (sequence.first_panel + position / kPanelPositions) * panel_stride_;
      write({input_.k.row<float>(row) + first_, input_.v.row<float>(row) + first_, head_dim_, panels_.keys + panel,
             panels_.values + panel, position % kPanelPositions});
    }
  }

  void attend_to_all(const QueryBlock& block) const {
    const PackedSequence& sequence = plan_.sequences[block.sequence];
    const AttentionRows rows{.q = input_.q.row<float>(block.begin) + first_,
                             .out = out_.row<float>(block.begin) + first_,
                             .token_stride = input_.q.row_elements(),
                             .num_tokens = block.end - block.begin,
                             .num_heads = 1,
                             .head_dim = head_dim_,
                             .first_limit = sequence.end - sequence.begin,
                             .limit_step = 0,
                             .scale = input_.scale};
    const int64_t first_panel = sequence.first_panel * panel_stride_;
    attend<float>(rows, PackedView{panels_.keys + first_panel, panels_.values + first_panel, panel_stride_});
  }

 private:
  const PackedAttentionInput& input_;
  const AttentionPlan& plan_;
  int64_t head_dim_;
  int64_t first_;
  Tensor& out_;
  int64_t panel_stride_;
  HeadPanels panels_;
};

}  // namespace

void packed_attention(const PackedAttentionInput& input, Tensor& out, ThreadPool& workers) {
  const int32_t* offsets = input.offsets.data<int32_t>();
  CHECK(offsets[0] == 0 && offsets[input.offsets.dim(0) - 1] == input.q.dim(0))
      << "packed_attention: offsets do not span the rows";
  const AttentionPlan& all = plan(input.offsets);
  const auto num_blocks = static_cast<int64_t>(all.blocks.size());
  for (int64_t head = 0; head < input.q.dim(1); ++head) {
    const HeadAttention attention(input, all, head, out);
    workers.parallel_for(num_blocks, [&](int64_t i) { attention.pack(all.blocks[static_cast<size_t>(i)]); });
    workers.parallel_for(num_blocks, [&](int64_t i) { attention.attend_to_all(all.blocks[static_cast<size_t>(i)]); });
  }
}

}  // namespace skipper::cpu
