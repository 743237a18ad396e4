#include "expert_parallel/important_tokens.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "tests/expert_parallel/frozen_routing.h"

namespace skipper {
namespace {

// Rows of a step: every one its own attention and hidden row.
struct Rows {
  explicit Rows(const std::vector<int32_t>& sequence_of_row, uint32_t seed = 1)
      : policies(TokenPolicies::defaults(static_cast<int64_t>(sequence_of_row.size()))),
        sequence(Tensor::empty({policies.num_tokens()}, DType::kI32)),
        hidden(Tensor::empty({policies.num_tokens(), 3}, DType::kF32)) {
    std::ranges::copy(sequence_of_row, sequence.span<int32_t>().begin());
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    for (float& value : hidden.span<float>()) value = normal(generator);
    for (size_t row = 0; row < sequence_of_row.size(); ++row) received.push_back(std::abs(normal(generator)));
  }

  double score(size_t row) const {
    const float* x = hidden.row<float>(static_cast<int64_t>(row));
    return double{received[row]} * (std::abs(double{x[0]}) + std::abs(double{x[1]}) + std::abs(double{x[2]}));
  }

  std::vector<uint8_t> marks(const LevelTable& levels) const {
    std::vector<uint8_t> marks(received.size(), 7);
    const auto of_rows = [&](const RowRange& range, std::span<float> out) {
      std::copy_n(received.begin() + range.begin, range.size(), out.begin());
    };
    mark_important_tokens({levels, policies, sequence, hidden}, of_rows, marks);
    return marks;
  }

  TokenPolicies policies;
  Tensor sequence;
  Tensor hidden;
  std::vector<float> received;
};

LevelTable protecting(float share) {
  return table({point({0.5f, 0.5f}, {0.0f, 0.0f}), point_with([&](OperatingPoint& p) {
                  p.tau = {2.0f, 2.0f};
                  p.protect_attention = share;
                })});
}

void set_all(Tensor& bytes, uint8_t value) { std::ranges::fill(bytes.span<uint8_t>(), value); }

TEST(ImportantTokens, AreTheShareOfAPromptThatIsReadMost) {
  Rows rows(std::vector<int32_t>(53, 0));
  set_all(rows.policies.level, 1);
  for (const auto& [share, count] : {std::pair{0.02f, 2}, std::pair{0.25f, 14}, std::pair{1.0f, 53}}) {
    const std::vector<uint8_t> marks = rows.marks(protecting(share));
    EXPECT_EQ(std::ranges::count(marks, 1), count);
    for (size_t marked = 0; marked < marks.size(); ++marked) {
      for (size_t other = 0; other < marks.size(); ++other) {
        if (marks[marked] != 1 || marks[other] != 0) continue;
        EXPECT_GE(rows.score(marked), rows.score(other) - 1e-5);
      }
    }
  }
}

TEST(ImportantTokens, ALargerShareKeepsThoseOfASmallerOne) {
  Rows rows(std::vector<int32_t>(31, 0));
  set_all(rows.policies.level, 1);
  std::vector<uint8_t> previous(31, 0);
  for (float share = 0.01f; share <= 1.0f; share += 0.07f) {
    const std::vector<uint8_t> marks = rows.marks(protecting(share));
    for (size_t row = 0; row < 31; ++row) EXPECT_LE(previous[row], marks[row]);
    previous = marks;
  }
}

TEST(ImportantTokens, OfOneSequenceDoNotDependOnOthersBesideIt) {
  Rows alone(std::vector<int32_t>(20, 0)), together(std::vector<int32_t>(33, 0), 2);
  for (int64_t row = 0; row < 33; ++row) together.sequence.data<int32_t>()[row] = row < 7 ? 0 : row < 27 ? 1 : 2;
  std::copy_n(alone.hidden.data<float>(), 60, together.hidden.row<float>(7));
  std::ranges::copy(alone.received, together.received.begin() + 7);
  set_all(alone.policies.level, 1);
  set_all(together.policies.level, 1);
  const std::vector<uint8_t> expected = alone.marks(protecting(0.2f)), marks = together.marks(protecting(0.2f));
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), marks.begin() + 7));
  EXPECT_EQ(std::ranges::count(marks, 1), 2 + 4 + 2);
}

TEST(ImportantTokens, AreNeitherGeneratedNorOfOtherLevelsNorProtectedAnyway) {
  Rows rows({0, 0, 0, 1, 1, 2, 2, 2});
  const LevelTable levels = protecting(1.0f);
  for (const int64_t row : {0, 1, 2, 5, 6, 7}) rows.policies.level.data<uint8_t>()[row] = 1;
  for (const int64_t row : {0, 1, 2}) rows.policies.phase.data<uint8_t>()[row] = static_cast<uint8_t>(TokenPhase::kGenerated);
  rows.policies.token_class.data<uint8_t>()[6] = static_cast<uint8_t>(TokenClass::kProtected);
  EXPECT_EQ(rows.marks(levels), (std::vector<uint8_t>{0, 0, 0, 0, 0, 1, 0, 1}));
  EXPECT_TRUE(any_token_is_protected_by_attention(levels, rows.policies));
  EXPECT_FALSE(any_token_is_protected_by_attention(levels, rows.policies.first(5)));
  EXPECT_FALSE(any_token_is_protected_by_attention(protecting(0.0f), rows.policies));
  EXPECT_FALSE(any_token_is_protected_by_attention(levels, rows.policies.first(0)));
}

TEST(ImportantTokens, ThatAreNoNumbersAndEqualsLeaveTheEarlierFirst) {
  Rows rows(std::vector<int32_t>(6, 0));
  set_all(rows.policies.level, 1);
  std::ranges::fill(rows.hidden.span<float>(), 1.0f);
  rows.received = {0.0f, std::nanf(""), 3.0f, 1.0f, 3.0f, std::numeric_limits<float>::infinity()};
  EXPECT_EQ(rows.marks(protecting(1.0f / 3.0f)), (std::vector<uint8_t>{0, 0, 1, 0, 0, 1}));
  EXPECT_EQ(rows.marks(protecting(0.5f)), (std::vector<uint8_t>{0, 0, 1, 0, 1, 1}));
  EXPECT_EQ(rows.marks(protecting(0.8f)), (std::vector<uint8_t>{1, 0, 1, 1, 1, 1}));
}

TEST(ImportantTokens, KeepAllPairsUnderEveryRule) {
  Frozen frozen = random_routing(90, 2, 5);
  OperatingPoint harsh = point({0.5f, 0.5f}, {2.0f, 2.0f});
  harsh.tau_dst = {std::array{0.0f, 9.0f, 9.0f}, std::array{0.0f, 9.0f, 9.0f}};
  harsh.decode_base_k = harsh.decode_rank_experts = 1;
  harsh.rank_capacity = 1.0f;
  harsh.renormalize = true;
  frozen.set_phase(TokenPhase::kGenerated);
  frozen.policies.keeps_all = Tensor::zeros({90}, DType::kU8);
  for (int64_t t = 0; t < 90; t += 7) frozen.policies.keeps_all.data<uint8_t>()[t] = 1;
  const Skipped skipped = skip(frozen, table({harsh, harsh}));
  int num_others = 0;
  for (size_t t = 0; t < 90; ++t) {
    if (frozen.token_class(t) == TokenClass::kProtected) continue;
    const auto num_lost = std::ranges::count(skipped.ids(t), kNoExpert);
    if (t % 7 == 0) {
      EXPECT_EQ(num_lost, 0);
      EXPECT_TRUE(std::ranges::equal(skipped.weights(t), frozen.weights(t)));
    } else {
      EXPECT_EQ(num_lost, int64_t{kTopK});
      ++num_others;
    }
  }
  EXPECT_GT(num_others, 0);
}

}  // namespace
}  // namespace skipper
