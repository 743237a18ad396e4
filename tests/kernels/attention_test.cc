#include "kernels/attention.h"

#include "kernels/cpu/instruction_set.h"
#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

struct Heads {
  int64_t count, size;
};

std::vector<double> attended(const PackedAttentionInput& input) {
  const std::vector<double> q = as_doubles(input.q), k = as_doubles(input.k), v = as_doubles(input.v);
  const size_t heads = static_cast<size_t>(input.q.dim(1)), size = static_cast<size_t>(input.q.dim(2));
  std::vector<double> out(q.size());
  for (int64_t s = 0; s + 1 < input.offsets.dim(0); ++s) {
    const auto begin = static_cast<size_t>(input.offsets.data<int32_t>()[s]),
               end = static_cast<size_t>(input.offsets.data<int32_t>()[s + 1]);
    for (size_t i = begin; i < end; ++i) {
      for (size_t h = 0; h < heads; ++h) {
        double total = 0;
        for (size_t j = begin; j < end; ++j) {
          double dot = 0;
          for (size_t d = 0; d < size; ++d) dot += q[(i * heads + h) * size + d] * k[(j * heads + h) * size + d];
          const double weight = std::exp(dot * double{input.scale});
          total += weight;
          for (size_t d = 0; d < size; ++d) out[(i * heads + h) * size + d] += weight * v[(j * heads + h) * size + d];
        }
        for (size_t d = 0; d < size; ++d) out[(i * heads + h) * size + d] /= total;
      }
    }
  }
  return out;
}

class PackedAttentionTest : public testing::TestWithParam<Heads> {
 protected:
  Tensor random_rows(int64_t rows, uint32_t seed) const {
    return random_tensor({rows, GetParam().count, GetParam().size}, DType::kF32, seed);
  }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(GetParam().size)); }
  Stream stream_;
};

TEST_P(PackedAttentionTest, AttendsWithinEachSequence) {
  const Tensor q = random_rows(60, 1), k = random_rows(60, 2), v = random_rows(60, 3);
  const Tensor offsets = index_tensor({0, 1, 1, 8, 25, 60});
  Tensor out = Tensor::empty(q.shape(), DType::kF32);
  const PackedAttentionInput input{q, k, v, offsets, scale()};
  packed_attention(input, out, stream_);
  expect_close(out, attended(input), 5e-6);
}

TEST_P(PackedAttentionTest, SequenceHasTheSameBitsAloneAndAmongOthers) {
  const Tensor q = random_rows(43, 4), k = random_rows(43, 5), v = random_rows(43, 6);
  Tensor all = Tensor::empty(q.shape(), DType::kF32);
  packed_attention({q, k, v, index_tensor({0, 5, 22, 43}), scale()}, all, stream_);
  Tensor alone = Tensor::empty(q.slice(5, 22).shape(), DType::kF32);
  packed_attention({q.slice(5, 22), k.slice(5, 22), v.slice(5, 22), index_tensor({0, 17}), scale()}, alone, stream_);
  EXPECT_TRUE(same_bits(alone, all.slice(5, 22)));
}

TEST_P(PackedAttentionTest, AttendsAcrossTilesOnEveryInstructionSet) {
  const Tensor q = random_rows(212, 11), k = random_rows(212, 12), v = random_rows(212, 13);
  const Tensor offsets = index_tensor({0, 131, 195, 212});
  const PackedAttentionInput input{q, k, v, offsets, scale()};
  const std::vector<double> expected = attended(input);
  for (const cpu::Isa isa : cpu::available_isas()) {
    SCOPED_TRACE(cpu::name_of(isa));
    const cpu::IsaOverride chosen(isa);
    Tensor out = Tensor::empty(q.shape(), DType::kF32);
    packed_attention(input, out, stream_);
    expect_close(out, expected, 5e-6);
  }
}

TEST_P(PackedAttentionTest, HasTheSameBitsOnAnyNumberOfThreads) {
  const Tensor q = random_rows(150, 14), k = random_rows(150, 15), v = random_rows(150, 16);
  const Tensor offsets = index_tensor({0, 3, 140, 150});
  Tensor alone = Tensor::empty(q.shape(), DType::kF32);
  packed_attention({q, k, v, offsets, scale()}, alone, stream_);
  for (const int num_threads : {2, 3}) {
    ThreadPool workers(num_threads);
    Stream stream(workers);
    Tensor out = Tensor::empty(q.shape(), DType::kF32);
    packed_attention({q, k, v, offsets, scale()}, out, stream);
    EXPECT_TRUE(same_bits(out, alone)) << num_threads << " threads";
  }
}

// The working memory of one call is that of the next.
TEST_P(PackedAttentionTest, NanOfOneCallOrSequenceReachesNoOther) {
  const Tensor q = random_rows(40, 17), k = random_rows(40, 18), v = random_rows(40, 19);
  Tensor before = Tensor::empty(q.shape(), DType::kF32);
  packed_attention({q, k, v, index_tensor({0, 40}), scale()}, before, stream_);
  Tensor nan = random_rows(100, 20);
  for (float& value : nan.span<float>()) value = NAN;
  Tensor poisoned = Tensor::empty(nan.shape(), DType::kF32);
  packed_attention({nan, nan, nan, index_tensor({0, 100}), scale()}, poisoned, stream_);
  Tensor after = Tensor::empty(q.shape(), DType::kF32);
  packed_attention({q, k, v, index_tensor({0, 40}), scale()}, after, stream_);
  EXPECT_TRUE(same_bits(after, before));
}

TEST_P(PackedAttentionTest, AcceptsNoRows) {
  const Tensor none = random_rows(0, 7);
  Tensor out = Tensor::empty(none.shape(), DType::kF32);
  packed_attention({none, none, none, index_tensor({0}), 1.0f}, out, stream_);
  packed_attention({none, none, none, index_tensor({0, 0}), 1.0f}, out, stream_);
}

INSTANTIATE_TEST_SUITE_P(HeadSizes, PackedAttentionTest,
                         testing::Values(Heads{1, 1}, Heads{3, 5}, Heads{2, 16}, Heads{2, 23}, Heads{2, 64}, Heads{1, 72},
                                         Heads{3, 128}));

TEST(PackedAttention, SurvivesScoresFarFromZero) {
  Stream stream;
  Tensor q = random_tensor({7, 1, 16}, DType::kF32, 8);
  for (float& value : q.span<float>()) value *= 300.0f;
  const Tensor k = random_tensor({7, 1, 16}, DType::kF32, 9), v = random_tensor({7, 1, 16}, DType::kF32, 10);
  Tensor out = Tensor::empty(q.shape(), DType::kF32);
  packed_attention({q, k, v, index_tensor({0, 7}), 1.0f}, out, stream);
  for (const float value : out.span<float>()) EXPECT_LT(std::abs(value), 10.0f);
}

}  // namespace
}  // namespace skipper
