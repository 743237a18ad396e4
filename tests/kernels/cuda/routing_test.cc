#include "kernels/cuda/routing.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "kernels/elementwise.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

Tensor converted(const Tensor& x, DType dtype) {
  Tensor y = Tensor::empty(x.shape(), dtype);
  cpu::convert(x, y);
  return y;
}

// --- Logits -------------------------------------------------------------------------------------------------------------------

struct LogitsShape {
  int64_t num_tokens, num_experts, num_inputs;
};

// The order that kernels/cuda/router_logits.cu promises: 16 slices of chunks of 8, each a chain, then a tree.
float logit_in_order(const float* x, const float* w, int64_t num_inputs) {
  std::array<float, 16> slices{};
  for (int64_t k = 0; k < num_inputs; ++k) {
    float& slice = slices[static_cast<size_t>(k / 8 % 16)];
    slice = std::fmaf(x[k], w[k], slice);
  }
  for (size_t distance = 8; distance > 0; distance /= 2) {
    for (size_t s = 0; s < distance; ++s) slices[s] += slices[s + distance];
  }
  return slices[0];
}

class RouterLogits : public GpuTest {
 protected:
  Tensor logits_of(const Tensor& x, const Tensor& w) {
    Tensor logits = poisoned({x.dim(0), w.dim(0)}, DType::kF32);
    router_logits(on_gpu(x), on_gpu(w), logits, stream());
    return on_host(logits);
  }
  // Of at most `num_rows` rows spread over the tokens: the definition is slow.
  void expect_definition(const LogitsShape& shape, DType dtype, int64_t num_rows) {
    const Tensor x = random_f32({shape.num_tokens, shape.num_inputs}, 1);
    const Tensor w = converted(random_f32({shape.num_experts, shape.num_inputs}, 2, 0.05f), dtype);
    const Tensor logits = logits_of(x, w), w_f32 = converted(w, DType::kF32);
    const int64_t step = std::max<int64_t>(1, shape.num_tokens / num_rows);
    for (int64_t t = 0; t < shape.num_tokens; t += step) {
      for (int64_t e = 0; e < shape.num_experts; ++e) {
        const float expected = logit_in_order(x.row<float>(t), w_f32.row<float>(e), shape.num_inputs);
        ASSERT_EQ(logits.row<float>(t)[e], expected) << t << ", " << e << " of " << logits.shape().to_string();
      }
    }
  }
};

TEST_F(RouterLogits, SumInTheDocumentedOrder) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const int64_t num_tokens : {1, 2, 12, 13, 48, 49, 128, 200, 201, 257}) {
      expect_definition({num_tokens, 128, 2048}, dtype, 3);
      expect_definition({num_tokens, 32, 256}, dtype, 20);
    }
  }
}

TEST_F(RouterLogits, SumInTheDocumentedOrderForManyTokens) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    expect_definition({1024, 128, 2048}, dtype, 5);
    expect_definition({2053, 128, 256}, dtype, 41);
  }
}

TEST_F(RouterLogits, TakeShapesThatFillNoTile) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    expect_definition({1, 1, 8}, dtype, 1);
    expect_definition({5, 7, 136}, dtype, 5);
    expect_definition({61, 67, 264}, dtype, 61);
    expect_definition({1409, 67, 136}, dtype, 100);
    expect_definition({70, 1021, 248}, dtype, 10);
    expect_definition({61, 35, 4232}, dtype, 5);
    expect_definition({500, 128, 2048}, dtype, 3);
  }
}

TEST_F(RouterLogits, ARowsBitsDoNotDependOnTheNumberOfRows) {
  const Tensor x = random_f32({1100, 2048}, 3), w = converted(random_f32({128, 2048}, 4), DType::kBF16);
  const Tensor all = logits_of(x, w);
  for (const int64_t num_tokens : {1, 3, 16, 64, 300}) {
    EXPECT_TRUE(same_bytes(logits_of(x.first(num_tokens), w), all.first(num_tokens))) << num_tokens;
  }
}

TEST_F(RouterLogits, TakeNoRows) {
  EXPECT_EQ(logits_of(Tensor::empty({0, 64}, DType::kF32), random_f32({5, 64}, 1)).num_elements(), 0);
}

// --- The largest --------------------------------------------------------------------------------------------------------------

struct Routed {
  Tensor expert_ids, routed_ids, expert_weights, usage, pair_counts, expert_loads, routed_weights;
};

// One rank, and a table whose rows skip nothing unless a test fills one.
class RouteTokens : public GpuTest {
 protected:
  static constexpr int64_t kNumRows = 6;

  static Tensor bytes(int64_t count, uint8_t value) {
    Tensor tensor = Tensor::empty({count}, DType::kU8);
    std::ranges::fill(tensor.span<uint8_t>(), value);
    return tensor;
  }
  static Tensor step_tokens(int64_t num_tokens) {
    Tensor tokens = Tensor::empty({num_tokens}, DType::kI32);
    for (int64_t t = 0; t < num_tokens; ++t) tokens.data<int32_t>()[t] = static_cast<int32_t>(num_tokens - 1 - t);
    return tokens;
  }
  Routed route(const Tensor& logits, int64_t top_k, TopKNormalization normalization) {
    return route_classes(logits, top_k, normalization, bytes(logits.dim(0), 0));
  }
  Routed route_classes(const Tensor& logits, int64_t top_k, TopKNormalization normalization, const Tensor& classes) {
    const int64_t num_tokens = logits.dim(0), num_experts = logits.dim(1);
    const Device gpu = Device::cuda(0);
    Routed out{.expert_ids = poisoned({num_tokens, top_k}, DType::kI32),
               .routed_ids = poisoned({num_tokens, top_k}, DType::kI32),
               .expert_weights = poisoned({num_tokens, top_k}, DType::kF32),
               .usage = Tensor::zeros({num_tokens, 4}, DType::kI32, gpu),
               .pair_counts = Tensor::zeros({2, 3, 2}, DType::kI64, gpu),
               .expert_loads = Tensor::zeros({3, num_experts}, DType::kI64, gpu),
               .routed_weights = poisoned({num_tokens, top_k}, DType::kF32)};
    const Tensor rows = Tensor::zeros({kNumRows, sizeof(SkipRow)}, DType::kU8, gpu), scale;
    const Tensor ranks = Tensor::zeros({num_experts}, DType::kI32, gpu), hops = Tensor::zeros({1}, DType::kI32, gpu);
    const Tensor on_gpu_logits = on_gpu(logits), on_gpu_classes = on_gpu(classes), levels = on_gpu(bytes(num_tokens, 0));
    const Tensor phases = on_gpu(bytes(num_tokens, 1)), tokens = on_gpu(step_tokens(num_tokens));
    route_tokens({.logits = on_gpu_logits,
                  .token_class = on_gpu_classes,
                  .level = levels,
                  .phase = phases,
                  .step_token = tokens,
                  .skip_rows = rows,
                  .expert_scale = scale,
                  .rank_of_expert = ranks,
                  .hop_of_rank = hops,
                  .normalization = normalization},
                 {out.expert_ids, out.routed_ids, out.expert_weights, out.usage, out.pair_counts, out.expert_loads,
                  out.routed_weights},
                 stream());
    return {on_host(out.expert_ids),   on_host(out.routed_ids),   on_host(out.expert_weights), on_host(out.usage),
            on_host(out.pair_counts), on_host(out.expert_loads), on_host(out.routed_weights)};
  }

  void expect_cpu(const Tensor& logits, int64_t top_k, TopKNormalization normalization) {
    const Routed routed = route(logits, top_k, normalization);
    Tensor ids = Tensor::empty({logits.dim(0), top_k}, DType::kI32), weights = Tensor::empty(ids.shape(), DType::kF32);
    Stream host;
    top_k_softmax(logits, normalization, ids, weights, host);
    EXPECT_TRUE(same_bytes(routed.expert_ids, ids)) << logits.shape().to_string() << " top " << top_k;
    EXPECT_TRUE(same_bytes(routed.routed_ids, ids)) << logits.shape().to_string() << " top " << top_k;
    EXPECT_TRUE(same_bytes(routed.expert_weights, weights)) << logits.shape().to_string() << " top " << top_k;
  }
};

constexpr std::array kBoth = {TopKNormalization::kNone, TopKNormalization::kSumToOne};

TEST_F(RouteTokens, HasTheBitsOfTheCpu) {
  for (const int64_t num_experts : {1, 8, 31, 32, 60, 128, 200, 256, 512, 1024}) {
    const Tensor logits = random_f32({67, num_experts}, static_cast<uint32_t>(num_experts), 3.0f);
    for (const int64_t top_k : {1, 2, 4, 7, 8, 16}) {
      if (top_k > num_experts) continue;
      for (const auto normalization : kBoth) expect_cpu(logits, top_k, normalization);
    }
  }
}

TEST_F(RouteTokens, TiesGoToTheLowerId) {
  Tensor logits = random_f32({40, 128}, 5);
  for (float& logit : logits.span<float>()) logit = std::round(logit * 2.0f) / 2.0f;  // −0 among them
  for (const auto normalization : kBoth) expect_cpu(logits, 8, normalization);
}

TEST_F(RouteTokens, TakesLogitsThatAreNoNumbers) {
  Tensor logits = random_f32({9, 128}, 6, 50.0f);
  const auto fill = [&](int64_t row, float value) { std::fill_n(logits.row<float>(row), 128, value); };
  fill(0, kNaN);
  fill(1, -kInfinity);
  fill(2, kInfinity);
  logits.row<float>(3)[77] = kInfinity;
  logits.row<float>(3)[78] = kNaN;
  logits.row<float>(4)[2] = -kNaN;
  fill(5, kNaN);
  logits.row<float>(5)[127] = -kInfinity;
  logits.row<float>(6)[0] = std::numeric_limits<float>::max();
  fill(7, std::numeric_limits<float>::lowest());
  for (const auto normalization : kBoth) expect_cpu(logits, 8, normalization);
}

TEST_F(RouteTokens, CountsPairsOfEachTokenAndOfTheLayer) {
  const Routed routed = route(random_f32({13, 32}, 7), 4, TopKNormalization::kSumToOne);
  for (int64_t t = 0; t < 13; ++t) {
    const int32_t* usage = routed.usage.row<int32_t>(t);
    EXPECT_EQ((std::array{usage[0], usage[1], usage[2], usage[3]}), (std::array{4, 0, 0, 0})) << t;
  }
  const int64_t* counts = routed.pair_counts.data<int64_t>();
  for (int i = 0; i < 12; ++i) EXPECT_EQ(counts[i], i == 6 ? 13 * 4 : 0) << "only generated text that ran: " << i;
}

TEST_F(RouteTokens, CountsThePairsOfEachExpertByClass) {
  constexpr int64_t kTokens = 70, kExperts = 33;
  Tensor classes = bytes(kTokens, 0);
  for (int64_t t = 0; t < kTokens; ++t) classes.data<uint8_t>()[t] = t % 4 == 3 ? 255 : static_cast<uint8_t>(t % 4);
  const Routed routed = route_classes(random_f32({kTokens, kExperts}, 9), 4, TopKNormalization::kSumToOne, classes);
  std::vector<int64_t> expected(3 * kExperts, 0);
  for (int64_t t = 0; t < kTokens; ++t) {
    if (t % 4 == 3) continue;
    for (int j = 0; j < 4; ++j) {
      ++expected[static_cast<size_t>(t % 4 * kExperts + routed.expert_ids.row<int32_t>(t)[j])];
      EXPECT_EQ(routed.routed_weights.row<float>(t)[j], routed.expert_weights.row<float>(t)[j]) << "nothing is skipped";
    }
  }
  const std::span<const int64_t> loads = routed.expert_loads.span<int64_t>();
  EXPECT_EQ(std::vector<int64_t>(loads.begin(), loads.end()), expected);
}

TEST_F(RouteTokens, PaddingRowsMeetNoExpertAndAreNotCounted) {
  Tensor logits = random_f32({9, 32}, 8), classes = bytes(9, 255);
  std::fill_n(logits.row<float>(2), 7 * 32, kNaN);
  classes.data<uint8_t>()[0] = 1;
  classes.data<uint8_t>()[1] = 2;
  const Routed routed = route_classes(logits, 4, TopKNormalization::kSumToOne, classes);
  for (int64_t t = 0; t < 9; ++t) {
    for (int j = 0; j < 4; ++j) {
      EXPECT_EQ(routed.expert_ids.row<int32_t>(t)[j] >= 0, t < 2);
      EXPECT_EQ(routed.routed_ids.row<int32_t>(t)[j] >= 0, t < 2);
      EXPECT_TRUE(std::isfinite(routed.expert_weights.row<float>(t)[j]));
    }
    EXPECT_EQ(routed.usage.row<int32_t>(8 - t)[0], t < 2 ? 4 : 0);
  }
  const int64_t* counts = routed.pair_counts.data<int64_t>();
  EXPECT_EQ(counts[6 + 2], 4);
  EXPECT_EQ(counts[6 + 4], 4);
}

TEST_F(RouteTokens, TakesNoTokens) {
  EXPECT_EQ(route(Tensor::empty({0, 32}, DType::kF32), 4, TopKNormalization::kNone).expert_ids.num_elements(), 0);
}

}  // namespace
}  // namespace skipper::cuda
