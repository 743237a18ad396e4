#include "kernels/attention_received.h"

#include <cmath>

#include "base/thread_pool.h"
#include "tests/kernels/random_tensors.h"

namespace skipper {
namespace {

constexpr int64_t kHeads = 6, kKvHeads = 2, kHeadDim = 24, kBlockSize = 16;
constexpr int32_t kLength = 37;

// One sequence of 37 tokens, its blocks in reverse order in the cache.
struct Prompt {
  explicit Prompt(DType dtype) : cache(empty_paged_kv({4, kBlockSize, kKvHeads, kHeadDim}, dtype)) {
    for (Tensor* tensor : {&cache.k, &cache.v}) std::memset(tensor->bytes(), 0xff, tensor->num_bytes());
    std::vector<int32_t> slots;
    for (int32_t p = 0; p < kLength; ++p) slots.push_back((3 - p / 16) * 16 + p % 16);
    Stream stream;
    store_kv(keys, random_tensor({kLength, kKvHeads, kHeadDim}, DType::kF32, 2), index_tensor(slots), cache, stream);
  }

  // Of the queries at these positions, in rows after `num_foreign` rows of somebody else.
  std::vector<float> received(const std::vector<int32_t>& positions, int64_t num_foreign = 0, int num_threads = 1) const {
    const auto num_rows = static_cast<int64_t>(positions.size());
    Tensor q = random_tensor({num_foreign + num_rows, kHeads, kHeadDim}, DType::kF32, 9);
    std::vector<int32_t> all_positions(static_cast<size_t>(num_foreign), 0), sequences(static_cast<size_t>(num_foreign), 0);
    for (int64_t row = 0; row < num_rows; ++row) {
      const int32_t position = positions[static_cast<size_t>(row)];
      std::memcpy(q.row<float>(num_foreign + row), queries.row<float>(position), sizeof(float) * kHeads * kHeadDim);
      all_positions.push_back(position);
      sequences.push_back(1);
    }
    const Tensor index = index_tensor(sequences), at = index_tensor(all_positions);
    const Tensor tables = index_tensor({0, 0, 0, 3, 2, 1}).reshaped({2, 3});
    std::vector<float> out(positions.size());
    ThreadPool workers(num_threads);
    Stream stream(workers);
    attention_received({q, index, at, tables, kScale}, cache, {num_foreign, num_foreign + num_rows}, out, stream);
    return out;
  }

  // The softmax weight of head h of the query at `reader` on `position`, from the definition.
  double weight(int64_t h, int32_t reader, int32_t position) const {
    double sum = 0.0, own = 0.0;
    for (int32_t p = 0; p <= reader; ++p) {
      double dot = 0.0;
      for (int64_t d = 0; d < kHeadDim; ++d) {
        const float key = keys.row<float>(p)[h / (kHeads / kKvHeads) * kHeadDim + d];
        const float cached = cache.k.dtype() == DType::kBF16 ? static_cast<float>(bf16(key)) : key;
        dot += double{queries.row<float>(reader)[h * kHeadDim + d]} * double{cached};
      }
      const double weight = std::exp(dot * double{kScale});
      sum += weight;
      if (p == position) own = weight;
    }
    return own / sum;
  }

  static constexpr float kScale = 0.2f;
  Tensor keys = random_tensor({kLength, kKvHeads, kHeadDim}, DType::kF32, 1);
  Tensor queries = random_tensor({kLength, kHeads, kHeadDim}, DType::kF32, 3);
  PagedKv cache;
};

std::vector<int32_t> positions_from(int32_t begin, int32_t end) {
  std::vector<int32_t> positions;
  for (int32_t p = begin; p < end; ++p) positions.push_back(p);
  return positions;
}

class AttentionReceivedTest : public testing::TestWithParam<DType> {};

TEST_P(AttentionReceivedTest, IsTheMeanWeightThatQueriesAfterATokenGiveIt) {
  const Prompt prompt(GetParam());
  const std::vector<int32_t> scattered = {3, 17, 36};
  for (const std::vector<int32_t>& positions : {positions_from(0, kLength), positions_from(20, 33), scattered}) {
    const std::vector<float> received = prompt.received(positions, 2);
    for (size_t i = 0; i < positions.size(); ++i) {
      double sum = 0.0;
      for (size_t reader = i; reader < positions.size(); ++reader) {
        for (int64_t h = 0; h < kHeads; ++h) sum += prompt.weight(h, positions[reader], positions[i]);
      }
      EXPECT_NEAR(received[i], sum / static_cast<double>(kHeads * static_cast<int64_t>(positions.size() - i)), 1e-5);
    }
  }
}

TEST_P(AttentionReceivedTest, OfAWholePromptIsAllThatItsQueriesHaveToGive) {
  const std::vector<float> received = Prompt(GetParam()).received(positions_from(0, kLength));
  double given = 0.0;
  for (size_t i = 0; i < received.size(); ++i) given += double{received[i]} * static_cast<double>(received.size() - i);
  EXPECT_NEAR(given, kLength, 1e-3);
}

TEST_P(AttentionReceivedTest, DependsOnNoOtherRowsAndOnNoNumberOfThreads) {
  const Prompt prompt(GetParam());
  const std::vector<float> alone = prompt.received(positions_from(5, 30));
  EXPECT_EQ(prompt.received(positions_from(5, 30), 4), alone);
  EXPECT_EQ(prompt.received(positions_from(5, 30), 1, 3), alone);
}

TEST_P(AttentionReceivedTest, TheFirstTokenAloneReadsItself) {
  EXPECT_EQ(Prompt(GetParam()).received({0}), std::vector<float>{1.0f});
  EXPECT_TRUE(Prompt(GetParam()).received({}).empty());
}

INSTANTIATE_TEST_SUITE_P(Caches, AttentionReceivedTest, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& test) { return std::string(name_of(test.param)); });

}  // namespace
}  // namespace skipper
