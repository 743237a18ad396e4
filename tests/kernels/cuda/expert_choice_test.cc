#include "kernels/cuda/expert_choice.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <ostream>
#include <vector>

#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

constexpr int64_t kNumSkipRows = 12;  // of two levels

struct ChoiceShape {
  int64_t num_tokens, hidden_size, num_experts, top_k;

  friend std::ostream& operator<<(std::ostream& out, const ChoiceShape& s) {
    return out << s.num_tokens << " rows of " << s.hidden_size << ", top " << s.top_k << " of " << s.num_experts;
  }
};

Tensor bytes(const std::vector<uint8_t>& values) {
  Tensor tensor = Tensor::empty({static_cast<int64_t>(values.size())}, DType::kU8);
  std::memcpy(tensor.bytes(), values.data(), values.size());
  return tensor;
}

// Everything that a step has before the choice, on the GPU.
struct ChoiceInputs {
  Tensor hidden, delta, norm_weight, router;
  Tensor token_class, level, phase, step_token, skip_rows, expert_scale, rank_of_expert, hop_of_rank;
  TopKNormalization normalization = TopKNormalization::kSumToOne;
};

// What a choice leaves in memory, all of it poisoned or zero before.
struct Chosen {
  Tensor hidden, expert_ids, routed_ids, expert_weights, usage, pair_counts;
  Tensor row_offsets, row_index, row_of_pair, sorted_rows;
};

class ChooseExperts : public GpuTest {
 protected:
  ChoiceInputs inputs_of(const ChoiceShape& shape, uint32_t seed) {
    const auto count = static_cast<size_t>(shape.num_tokens);
    std::vector<uint8_t> classes(count), levels(count), phases(count);
    for (size_t t = 0; t < count; ++t) {
      classes[t] = static_cast<uint8_t>(t % 3);
      levels[t] = t % 2;
      phases[t] = t / 2 % 2;
    }
    Tensor step_token = Tensor::empty({shape.num_tokens}, DType::kI32);
    for (int64_t t = 0; t < shape.num_tokens; ++t) step_token.data<int32_t>()[t] = static_cast<int32_t>(shape.num_tokens - 1 - t);
    Tensor scale = random_f32({2, shape.num_experts}, seed + 4, 0.3f);
    for (float& value : scale.span<float>()) value = 1.0f + 0.1f * value;
    const Device gpu = Device::cuda(0);
    return {.hidden = random_f32({shape.num_tokens, shape.hidden_size}, seed),
            .delta = on_gpu(random_f32({shape.num_tokens, shape.hidden_size}, seed + 1)),
            .norm_weight = on_gpu(random_f32({shape.hidden_size}, seed + 2)),
            .router = on_gpu(random_f32({shape.num_experts, shape.hidden_size}, seed + 3, 0.05f)),
            .token_class = on_gpu(bytes(classes)),
            .level = on_gpu(bytes(levels)),
            .phase = on_gpu(bytes(phases)),
            .step_token = on_gpu(step_token),
            .skip_rows = on_gpu(skip_rows()),
            .expert_scale = on_gpu(scale),
            .rank_of_expert = Tensor::zeros({shape.num_experts}, DType::kI32, gpu),
            .hop_of_rank = Tensor::zeros({1}, DType::kI32, gpu)};
  }
  // Level 0 skips nothing, level 1 much.
  static Tensor skip_rows() {
    std::array<SkipRow, kNumSkipRows> rows{};
    for (size_t i = kNumSkipRows / 2; i < rows.size(); ++i) {
      rows[i].alpha = 1.0f;
      rows[i].tau = 0.14f;
      rows[i].renormalize = i % 2 == 0 ? 1 : 0;
    }
    Tensor tensor = Tensor::empty({kNumSkipRows, sizeof(SkipRow)}, DType::kU8);
    std::memcpy(tensor.bytes(), rows.data(), sizeof(rows));
    return tensor;
  }

  Chosen memory_for(const ChoiceShape& shape, const Tensor& hidden) {
    const int64_t num_rows = shape.num_tokens * std::min(shape.top_k, shape.num_experts);
    const Device gpu = Device::cuda(0);
    return {.hidden = on_gpu(hidden),
            .expert_ids = poisoned({shape.num_tokens, shape.top_k}, DType::kI32),
            .routed_ids = poisoned({shape.num_tokens, shape.top_k}, DType::kI32),
            .expert_weights = poisoned({shape.num_tokens, shape.top_k}, DType::kF32),
            .usage = Tensor::zeros({shape.num_tokens, 4}, DType::kI32, gpu),
            .pair_counts = Tensor::zeros({2, 3, 2}, DType::kI64, gpu),
            .row_offsets = poisoned({shape.num_experts + 1}, DType::kI32),
            .row_index = poisoned({num_rows}, DType::kI32),
            .row_of_pair = poisoned({shape.num_tokens, shape.top_k}, DType::kI32),
            .sorted_rows = poisoned({num_rows, shape.hidden_size}, DType::kBF16)};
  }

  static RouteInput route_input(const ChoiceInputs& in, const Tensor& logits) {
    return {.logits = logits,
            .token_class = in.token_class,
            .level = in.level,
            .phase = in.phase,
            .step_token = in.step_token,
            .skip_rows = in.skip_rows,
            .expert_scale = in.expert_scale,
            .rank_of_expert = in.rank_of_expert,
            .hop_of_rank = in.hop_of_rank,
            .normalization = in.normalization};
  }
  static RouteOutput route_output(Chosen& out) {
    return {.expert_ids = out.expert_ids,
            .routed_ids = out.routed_ids,
            .expert_weights = out.expert_weights,
            .usage = out.usage,
            .pair_counts = out.pair_counts};
  }

  Chosen choose_at_once(const ChoiceShape& shape, const ChoiceInputs& in) {
    Chosen out = memory_for(shape, in.hidden);
    const Tensor logits;
    choose_experts({in.delta, {in.norm_weight, 1e-6f}, in.router, route_input(in, logits)},
                   {out.hidden, route_output(out), {out.row_offsets, out.row_index, out.row_of_pair}, out.sorted_rows}, stream());
    return out;
  }
  // The four kernels one after the other.
  Chosen choose_in_steps(const ChoiceShape& shape, const ChoiceInputs& in) {
    Chosen out = memory_for(shape, in.hidden);
    NormedRows normed{poisoned(in.hidden.shape(), DType::kF32), poisoned(in.hidden.shape(), DType::kBF16)};
    add_rms_norm(in.delta, {in.norm_weight, 1e-6f}, out.hidden, normed, stream());
    Tensor logits = poisoned({shape.num_tokens, shape.num_experts}, DType::kF32);
    router_logits(normed.f32, in.router, logits, stream());
    route_tokens(route_input(in, logits), route_output(out), stream());
    Tensor num_rows = Tensor::empty({1}, DType::kI32);
    num_rows.data<int32_t>()[0] = static_cast<int32_t>(shape.num_tokens);
    num_rows = on_gpu(num_rows);
    sort_and_gather({normed.bf16, out.expert_ids, num_rows, shape.num_tokens},
                    {out.row_offsets, out.row_index, out.row_of_pair}, out.sorted_rows, stream());
    stream().synchronize();
    return out;
  }

  void expect_same_as_in_steps(const ChoiceShape& shape, const ChoiceInputs& in) {
    const Chosen once = choose_at_once(shape, in), steps = choose_in_steps(shape, in);
    const auto same = [&](const Tensor& a, const Tensor& b) { return same_bytes(on_host(a), on_host(b)); };
    EXPECT_TRUE(same(once.hidden, steps.hidden)) << shape;
    EXPECT_TRUE(same(once.expert_ids, steps.expert_ids)) << shape;
    EXPECT_TRUE(same(once.routed_ids, steps.routed_ids)) << shape;
    EXPECT_TRUE(same(once.expert_weights, steps.expert_weights)) << shape;
    EXPECT_TRUE(same(once.usage, steps.usage)) << shape;
    EXPECT_TRUE(same(once.pair_counts, steps.pair_counts)) << shape;
    EXPECT_TRUE(same(once.row_offsets, steps.row_offsets)) << shape;
    EXPECT_TRUE(same(once.row_index, steps.row_index)) << shape;
    EXPECT_TRUE(same(once.row_of_pair, steps.row_of_pair)) << shape;
    EXPECT_TRUE(same(once.sorted_rows, steps.sorted_rows)) << shape;
  }
};

TEST_F(ChooseExperts, HaveTheBitsOfTheSeparateKernels) {
  for (int64_t num_tokens = 1; num_tokens <= 2; ++num_tokens) {
    for (const ChoiceShape& shape : {ChoiceShape{num_tokens, 2048, 128, 8}, ChoiceShape{num_tokens, 256, 32, 4},
                                     ChoiceShape{num_tokens, 136, 67, 7}, ChoiceShape{num_tokens, 1024, 256, 16},
                                     ChoiceShape{num_tokens, 8, 3, 2}, ChoiceShape{num_tokens, 24, 1, 1}}) {
      expect_same_as_in_steps(shape, inputs_of(shape, static_cast<uint32_t>(num_tokens)));
    }
  }
}

TEST_F(ChooseExperts, HaveTheSameBitsWithSoftmaxOverAllExperts) {
  const ChoiceShape shape{2, 2048, 128, 8};
  ChoiceInputs in = inputs_of(shape, 17);
  in.normalization = TopKNormalization::kNone;
  expect_same_as_in_steps(shape, in);
}

TEST_F(ChooseExperts, LeavePaddingWithoutExperts) {
  const ChoiceShape shape{2, 2048, 128, 8};
  for (size_t padding = 0; padding < 2; ++padding) {
    ChoiceInputs in = inputs_of(shape, 23);
    std::vector<uint8_t> classes(2, 0);
    classes[padding] = 255;
    in.token_class = on_gpu(bytes(classes));
    expect_same_as_in_steps(shape, in);
  }
}

TEST_F(ChooseExperts, SkipSomeButNotAllOfThePairs) {
  const ChoiceShape shape{2, 2048, 128, 8};
  const Tensor counts = on_host(choose_at_once(shape, inputs_of(shape, 5)).pair_counts);
  int64_t run = 0, skipped = 0;
  for (int64_t i = 0; i < counts.num_elements(); i += 2) {
    run += counts.data<int64_t>()[i];
    skipped += counts.data<int64_t>()[i + 1];
  }
  EXPECT_GT(run, 0);
  EXPECT_GT(skipped, 0);
  EXPECT_EQ(run + skipped, 2 * 8);
}

TEST(CanChooseExperts, AsksForShapesThatFitOnTheChip) {
  EXPECT_TRUE(can_choose_experts({1, 2048, 128}));
  EXPECT_TRUE(can_choose_experts({2, 2048, 128}));
  EXPECT_FALSE(can_choose_experts({0, 2048, 128}));
  EXPECT_FALSE(can_choose_experts({3, 2048, 128}));
  EXPECT_FALSE(can_choose_experts({1, 4096, 256}));  // 512 KB of router rows in each block
  EXPECT_FALSE(can_choose_experts({1, 2048, 512}));
  EXPECT_FALSE(can_choose_experts({1, 7168, 8}));
}

}  // namespace
}  // namespace skipper::cuda
