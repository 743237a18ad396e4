#include "kernels/cuda/packed_attention.h"

#include <cmath>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

// Queries, keys and values of packed sequences, exactly representable in BF16 so that both sides see the same numbers.
struct PackedCase {
  PackedCase(std::vector<int64_t> sizes, int64_t heads, int64_t dim)
      : lengths(std::move(sizes)), num_heads(heads), head_dim(dim) {
    for (const int64_t length : lengths) rows += length;
    q = values(1);
    k = values(2);
    v = values(3);
  }

  Tensor values(uint32_t seed) const {
    const Tensor exact = random_f32({rows, num_heads, head_dim}, seed);
    Tensor rounded = Tensor::empty(exact.shape(), DType::kBF16), widened = Tensor::empty(exact.shape(), DType::kF32);
    cpu::convert(exact, rounded);
    cpu::convert(rounded, widened);
    return widened;
  }
  // As split_vision_heads leaves them.
  Tensor padded(const Tensor& part) const {
    const int64_t width = padded_head_dim(head_dim);
    Tensor result = Tensor::zeros({rows, num_heads, width}, DType::kBF16);
    for (int64_t head = 0; head < rows * num_heads; ++head) {
      for (int64_t i = 0; i < head_dim; ++i) {
        result.data<bf16>()[head * width + i] = bf16(part.data<float>()[head * head_dim + i]);
      }
    }
    return result;
  }
  Tensor offsets() const {
    Tensor result = Tensor::zeros({static_cast<int64_t>(lengths.size()) + 1}, DType::kI32);
    for (size_t s = 0; s < lengths.size(); ++s) {
      result.data<int32_t>()[s + 1] = result.data<int32_t>()[s] + static_cast<int32_t>(lengths[s]);
    }
    return result;
  }
  int64_t longest() const { return lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end()); }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
  Tensor expected() const {
    Stream host;
    Tensor out = Tensor::empty(q.shape(), DType::kF32);
    skipper::packed_attention({q, k, v, offsets(), scale()}, out, host);
    return out;
  }

  std::vector<int64_t> lengths;
  int64_t num_heads, head_dim, rows = 0;
  Tensor q, k, v;
};

class PackedAttention : public GpuTest {
 protected:
  Tensor run(const PackedCase& c) { return run(c, c.longest()); }
  // [rows, heads · D] f32
  Tensor run(const PackedCase& c, int64_t longest) {
    const Tensor q = on_gpu(c.padded(c.q)), k = on_gpu(c.padded(c.k)), v = on_gpu(c.padded(c.v)), offsets = on_gpu(c.offsets());
    Tensor out = poisoned({c.rows, c.num_heads * c.head_dim}, DType::kBF16);
    packed_attention({q, k, v, offsets, longest, c.scale()}, out, stream());
    const Tensor rounded = on_host(out);
    Tensor widened = Tensor::empty(rounded.shape(), DType::kF32);
    cpu::convert(rounded, widened);
    return widened;
  }
};

TEST_F(PackedAttention, AgreesWithTheHostForEveryHeadSize) {
  for (const int64_t head_dim : {8, 32, 40, 64, 72, 80, 96, 128}) {
    const PackedCase c({61, 130}, 3, head_dim);
    EXPECT_LT(relative_error(run(c), c.expected()), 5e-3) << head_dim;
  }
}

TEST_F(PackedAttention, AgreesWithTheHostForEveryLength) {
  for (const int64_t length : {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 300}) {
    const PackedCase narrow({length}, 2, 72), wide({length}, 1, 128);
    EXPECT_LT(relative_error(run(narrow), narrow.expected()), 5e-3) << length;
    EXPECT_LT(relative_error(run(wide), wide.expected()), 5e-3) << length;
  }
}

TEST_F(PackedAttention, SequencesDoNotSeeEachOther) {
  const PackedCase c({5, 0, 200, 1, 64, 77}, 16, 72);
  EXPECT_LT(relative_error(run(c), c.expected()), 5e-3);
}

TEST_F(PackedAttention, SurvivesScoresFarApart) {
  PackedCase c({100}, 1, 64);
  for (int64_t i = 0; i < c.q.num_elements(); ++i) c.q.data<float>()[i] *= 64.0f;
  EXPECT_LT(relative_error(run(c), c.expected()), 5e-3);
}

TEST_F(PackedAttention, BitsOfASequenceDependOnItAlone) {
  const PackedCase together({70, 133, 9}, 2, 72);
  const Tensor all = run(together);
  PackedCase alone({133}, 2, 72);
  for (Tensor PackedCase::*part : {&PackedCase::q, &PackedCase::k, &PackedCase::v}) {
    alone.*part = (together.*part).slice(70, 203);
  }
  EXPECT_TRUE(same_bytes(run(alone), all.slice(70, 203)));
  EXPECT_TRUE(same_bytes(run(alone, 1000), all.slice(70, 203))) << "a larger bound changed the result";
}

TEST_F(PackedAttention, NothingToDoWithoutRows) {
  EXPECT_EQ(run(PackedCase({}, 2, 64)).num_elements(), 0);
  EXPECT_EQ(run(PackedCase({0, 0}, 2, 64)).num_elements(), 0);
}

}  // namespace
}  // namespace skipper::cuda
