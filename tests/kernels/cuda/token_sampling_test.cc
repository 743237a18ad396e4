#include "kernels/cuda/token_sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Rows of one vocabulary, each with a sampling of its own.
struct Rows {
  Tensor logits;
  std::vector<TokenSampling> samplings;

  int64_t count() const { return logits.dim(0); }
};

class TokenSamplings : public GpuTest {
 protected:
  std::vector<int32_t> tokens_of(const Rows& rows) {
    Tensor samplings = Tensor::empty({rows.count(), static_cast<int64_t>(sizeof(PackedTokenSampling))}, DType::kU8);
    for (int64_t row = 0; row < rows.count(); ++row) {
      const PackedTokenSampling sampling = packed(rows.samplings[static_cast<size_t>(row)]);
      std::memcpy(samplings.row<uint8_t>(row), &sampling, sizeof(sampling));
    }
    Tensor ids = poisoned({rows.count()}, DType::kI32);
    sample_tokens(on_gpu(rows.logits), on_gpu(samplings), ids, stream());
    const Tensor host = on_host(ids);
    return {host.span<int32_t>().begin(), host.span<int32_t>().end()};
  }

  // The host samples each row on its own.
  void expect_tokens_of_the_host(const Rows& rows) {
    const std::vector<int32_t> tokens = tokens_of(rows);
    std::vector<float> logits(static_cast<size_t>(rows.logits.dim(1)));
    for (int64_t row = 0; row < rows.count(); ++row) {
      const TokenSampling& sampling = rows.samplings[static_cast<size_t>(row)];
      std::copy_n(rows.logits.row<float>(row), logits.size(), logits.begin());
      ASSERT_EQ(tokens[static_cast<size_t>(row)], sample_token(logits, sampling))
          << "row " << row << " of " << rows.count() << ", " << logits.size() << " logits, temperature " << sampling.temperature
          << ", top_k " << sampling.top_k << ", top_p " << sampling.top_p << ", " << sampling.forbidden.size() << " forbidden";
    }
  }
};

// Every combination comes up, sooner or later; greedy rows stand between the others.
TokenSampling random_sampling(std::mt19937_64& generator, int64_t vocab_size) {
  const auto one_of = [&](auto... values) {
    const std::array options{values...};
    return options[generator() % options.size()];
  };
  const auto size = static_cast<int32_t>(vocab_size);
  return {.temperature = one_of(0.0f, 1e-40f, 1e-3f, 0.3f, 0.7f, 1.0f, 1.0f, 2.5f, 100.0f),
          .top_p = one_of(0.0f, 1e-9f, 0.1f, 0.5f, 0.9f, 0.95f, 0.999999f, 1.0f, 1.0f),
          .top_k = one_of(0, 0, 1, 2, 20, 50, 1000, size - 1, size, 2 * size),
          .random = one_of(uint64_t{0}, ~uint64_t{0}, uint64_t{generator()}, uint64_t{generator()}, uint64_t{generator()})};
}

Rows random_rows(int64_t num_rows, int64_t vocab_size, uint32_t seed, float deviation) {
  Rows rows{random_f32({num_rows, vocab_size}, seed, deviation), {}};
  std::mt19937_64 generator(seed);
  for (int64_t row = 0; row < num_rows; ++row) rows.samplings.push_back(random_sampling(generator, vocab_size));
  return rows;
}

// So that many logits are equal.
void round_logits(Rows& rows, float step) {
  for (float& logit : rows.logits.span<float>()) logit = std::round(logit / step) * step;
}

TEST_F(TokenSamplings, AreTheHostsForEveryVocabularyAndSampling) {
  for (const int64_t vocab_size : {1, 2, 3, 4, 7, 96, 511, 1000, 1021, 4096, 4100, 8192, 20011}) {
    for (const float deviation : {0.01f, 1.0f, 3.0f, 30.0f}) {
      const int64_t num_rows = vocab_size < 5000 ? 200 : 50;
      expect_tokens_of_the_host(random_rows(num_rows, vocab_size, static_cast<uint32_t>(vocab_size), deviation));
    }
  }
}

TEST_F(TokenSamplings, OfGreedyRowsAreTheLargest) {
  for (const int64_t vocab_size : {1, 7, 512, 8192, 32'771, 151'936}) {
    for (const int64_t num_rows : {1, 3, 40}) {
      const Rows rows{random_f32({num_rows, vocab_size}, static_cast<uint32_t>(vocab_size + num_rows)),
                      std::vector<TokenSampling>(static_cast<size_t>(num_rows))};
      const std::vector<int32_t> tokens = tokens_of(rows);
      for (int64_t row = 0; row < num_rows; ++row) {
        const float* values = rows.logits.row<float>(row);
        EXPECT_EQ(tokens[static_cast<size_t>(row)], std::max_element(values, values + vocab_size) - values) << vocab_size;
      }
    }
  }
}

TEST_F(TokenSamplings, OfGreedyRowsAreTheLowestOfEqualsAndNeverNaNBesideANumber) {
  constexpr int64_t kVocab = 20000;
  Rows rows{Tensor::empty({6, kVocab}, DType::kF32), std::vector<TokenSampling>(6)};
  Tensor& logits = rows.logits;
  std::fill_n(logits.data<float>(), 2 * kVocab, -1.0f);
  std::fill_n(logits.row<float>(2), 4 * kVocab, kNaN);
  for (const int64_t at : {19999, 12345, 4097, 8191}) logits.row<float>(0)[at] = 2.5f;
  logits.row<float>(1)[300] = 0.0f;  // both zeros are equal
  logits.row<float>(1)[299] = -0.0f;
  logits.row<float>(3)[17000] = -kInfinity;  // as small as NaN
  logits.row<float>(4)[19998] = kInfinity;
  logits.row<float>(4)[5] = 3.0f;
  logits.row<float>(5)[11] = -7.0f;
  logits.row<float>(5)[12] = -6.0f;
  EXPECT_EQ(tokens_of(rows), (std::vector<int32_t>{4097, 299, 0, 0, 19998, 12}));
}

TEST_F(TokenSamplings, AreTheHostsForTheVocabulariesOfLargeModels) {
  expect_tokens_of_the_host(random_rows(40, 151'936, 1, 3.0f));
  expect_tokens_of_the_host(random_rows(12, 262'147, 2, 2.0f));
  expect_tokens_of_the_host(random_rows(3, kMostSampledLogits, 3, 2.0f));
}

TEST_F(TokenSamplings, TakeTheLowerIdsOfEquals) {
  for (const float step : {0.5f, 2.0f, 100.0f}) {
    for (const int64_t vocab_size : {5, 64, 5003, 40'000}) {
      Rows rows = random_rows(60, vocab_size, 11, 3.0f);
      round_logits(rows, step);
      expect_tokens_of_the_host(rows);
    }
  }
}

TEST_F(TokenSamplings, SurviveLogitsThatAreNoNumbersOrInfinite) {
  std::mt19937_64 generator(5);
  for (const int64_t vocab_size : {3, 130, 9000}) {
    Rows rows = random_rows(90, vocab_size, 17, 2.0f);
    for (int64_t row = 0; row < rows.count(); ++row) {
      const std::vector<float> values = row % 3 == 0   ? std::vector<float>{kNaN, -kInfinity}
                                        : row % 3 == 1 ? std::vector<float>{kNaN, kInfinity, 0.0f, -0.0f}
                                                       : std::vector<float>{-kInfinity, 3.4e38f, -3.4e38f, 1e-45f};
      // All of the row, or about half.
      for (int64_t id = 0; id < vocab_size; ++id) {
        if (row % 2 == 0 || generator() % 2 == 0) rows.logits.row<float>(row)[id] = values[generator() % values.size()];
      }
    }
    expect_tokens_of_the_host(rows);
  }
}

TEST_F(TokenSamplings, NeverTakeAForbiddenTokenUnlessAllAre) {
  std::mt19937_64 generator(6);
  for (const int64_t vocab_size : {1, 4, 9, 10, 5000}) {
    Rows rows = random_rows(120, vocab_size, 23, 2.0f);
    std::vector<std::vector<int32_t>> forbidden(120);
    for (size_t row = 0; row < forbidden.size(); ++row) {
      std::vector<float> logits(rows.logits.row<float>(static_cast<int64_t>(row)),
                                rows.logits.row<float>(static_cast<int64_t>(row)) + vocab_size);
      // The likeliest first, now and then one that does not exist.
      for (size_t i = 0; i < row % (PackedTokenSampling::kMostForbidden + 1); ++i) {
        const int32_t largest = largest_logit(logits);
        forbidden[row].push_back(generator() % 5 == 0 ? static_cast<int32_t>(vocab_size) : largest);
        logits[static_cast<size_t>(largest)] = -kInfinity;
      }
      rows.samplings[row].forbidden = forbidden[row];
    }
    expect_tokens_of_the_host(rows);
  }
}

TEST_F(TokenSamplings, DependOnTheirRowAlone) {
  const Rows many = random_rows(70, 3001, 29, 2.0f);
  const std::vector<int32_t> together = tokens_of(many);
  for (const int64_t row : {0, 1, 38, 69}) {
    const Rows alone{many.logits.slice(row, row + 1), {many.samplings[static_cast<size_t>(row)]}};
    EXPECT_EQ(tokens_of(alone).front(), together[static_cast<size_t>(row)]);
  }
}

TEST_F(TokenSamplings, AreRepeatable) {
  const Rows rows = random_rows(33, 50'000, 31, 1.0f);
  const std::vector<int32_t> first = tokens_of(rows);
  for (int round = 0; round < 5; ++round) EXPECT_EQ(tokens_of(rows), first);
}

TEST_F(TokenSamplings, OfNoRowsAreNone) { EXPECT_TRUE(tokens_of(random_rows(0, 17, 1, 1.0f)).empty()); }

}  // namespace
}  // namespace skipper::cuda
