#include "expert_parallel/moe_layer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <tuple>

#include "tests/expert_parallel/moe_run.h"
#include "tests/support/moe_reference.h"
#include "tests/support/row_code_reference.h"

namespace skipper {
namespace {

// Largest error allowed against the double-precision reference, relative to the largest output of the batch.
constexpr double kExactTolerance = 2e-5;   // combine and what experts multiply in f32: only sums differ
constexpr double kBf16Tolerance = 2e-2;    // hidden rows and partial sums rounded to 8 bits

constexpr MoeShape kShape{.hidden_size = 33, .intermediate_size = 12, .num_experts = 13, .top_k = 4};

std::vector<ReferencePair> kept_pairs(const TokenResult& token) {
  std::vector<ReferencePair> pairs;
  for (size_t j = 0; j < token.kept_ids.size(); ++j) {
    if (token.kept_ids[j] != kNoExpert) pairs.push_back({token.kept_ids[j], token.kept_weights[j]});
  }
  return pairs;
}

// What the experts get of a row whose values are BF16.
std::vector<float> row_as_received(const MoeSetup& setup, std::span<const float> row) {
  const PayloadFormat format = setup.formats.payload_format;
  return is_coded(format) ? reference_coded_row(row_code_of(format), row) : std::vector<float>(row.begin(), row.end());
}

// Compares outputs with the reference experts, given the routing that the run reports.
void expect_reference(const MoeSetup& setup, const TokenBatch& batch, const MoeRun& run) {
  double largest = 1e-6;
  double error = 0.0;
  for (size_t t = 0; t < batch.size(); ++t) {
    const auto expected = reference_moe(setup.weights, kept_pairs(run.tokens[t]), row_as_received(setup, batch.row(t)));
    ASSERT_EQ(run.tokens[t].out.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      largest = std::max(largest, std::abs(expected[i]));
      error = std::max(error, std::abs(expected[i] - double{run.tokens[t].out[i]}));
    }
  }
  const bool exact = setup.formats.payload_format != PayloadFormat::kBF16 && setup.formats.combine_dtype == DType::kF32;
  EXPECT_LE(error, largest * (exact ? kExactTolerance : kBf16Tolerance));
}

void expect_reference_routing(const MoeSetup& setup, const TokenBatch& batch, const MoeRun& run) {
  for (size_t t = 0; t < batch.size(); ++t) {
    const auto expected = reference_routing(setup.weights, batch.row(t));
    for (size_t j = 0; j < expected.size(); ++j) {
      EXPECT_EQ(run.tokens[t].routed_ids[j], expected[j].expert);
      EXPECT_NEAR(run.tokens[t].routed_weights[j], expected[j].weight, 1e-5);
    }
  }
}

int rank_of_expert(const MoeSetup& setup, int32_t expert) {
  // Blocks of consecutive experts: the first rank whose block ends beyond the expert.
  int rank = 0;
  while ((rank + 1) * setup.weights.shape.num_experts / setup.world_size <= expert) ++rank;
  return rank;
}

Hop hop_between(const MoeSetup& setup, int from, int to) {
  if (from == to) return Hop::kLocal;
  if (setup.node_of_rank.empty()) return Hop::kNode;
  return setup.node_of_rank[static_cast<size_t>(from)] == setup.node_of_rank[static_cast<size_t>(to)] ? Hop::kNode
                                                                                                    : Hop::kNetwork;
}

std::set<int> destinations(const MoeSetup& setup, const std::vector<int32_t>& ids) {
  std::set<int> ranks;
  for (const int32_t expert : ids) {
    if (expert != kNoExpert) ranks.insert(rank_of_expert(setup, expert));
  }
  return ranks;
}

int64_t dispatch_row_bytes(const MoeSetup& setup, int64_t hidden_size) {
  switch (setup.formats.payload_format) {
    case PayloadFormat::kF32:
      return 4 * hidden_size;
    case PayloadFormat::kBF16:
      return 2 * hidden_size;
    default:  // a code each, a scale for every 128
      return hidden_size + 4 * static_cast<int64_t>(std::ceil(static_cast<double>(hidden_size) / 128));
  }
}

// Counts of every rank, from the dumped routing alone.
std::vector<TrafficCounters> recount(const MoeSetup& setup, const TokenBatch& batch, const MoeRun& run) {
  const int64_t dispatch_row = dispatch_row_bytes(setup, batch.hidden_size);
  const int64_t combine_row = batch.hidden_size * static_cast<int64_t>(size_of(setup.formats.combine_dtype));
  std::vector<TrafficCounters> counters(static_cast<size_t>(setup.world_size));
  for (int from = 0; from < setup.world_size; ++from) {
    for (int to = 0; to < setup.world_size; ++to) {
      counters[static_cast<size_t>(from)].wire_bytes[0][static_cast<size_t>(hop_between(setup, from, to))] += 28;
    }
  }
  for (size_t t = 0; t < batch.size(); ++t) {
    const TokenResult& token = run.tokens[t];
    const int from = batch.owners[t];
    const auto c = static_cast<size_t>(batch.classes[t]);
    TrafficCounters& source = counters[static_cast<size_t>(from)];
    const std::set<int> kept = destinations(setup, token.kept_ids);
    for (const int to : destinations(setup, token.routed_ids)) {
      TrafficCounters& destination = counters[static_cast<size_t>(to)];
      const auto hop = static_cast<size_t>(hop_between(setup, from, to));
      const bool sent = kept.contains(to);
      (sent ? source.payload_bytes : source.saved_bytes)[0][hop][c] += dispatch_row;
      (sent ? destination.payload_bytes : destination.saved_bytes)[1][hop][c] += combine_row;
      source.wire_bytes[0][hop] += sent ? dispatch_row + 4 : 0;
      destination.wire_bytes[1][hop] += sent ? combine_row : 0;
    }
    for (size_t j = 0; j < token.routed_ids.size(); ++j) {
      if (token.kept_ids[j] == kNoExpert) {
        ++source.pairs_skipped[c];
        continue;
      }
      ++source.pairs_run[c];
      const int to = rank_of_expert(setup, token.kept_ids[j]);
      source.wire_bytes[0][static_cast<size_t>(hop_between(setup, from, to))] += 8;
    }
  }
  return counters;
}

void expect_recount(const MoeSetup& setup, const TokenBatch& batch, const MoeRun& run) {
  const auto expected = recount(setup, batch, run);
  for (size_t rank = 0; rank < expected.size(); ++rank) {
    EXPECT_EQ(run.counters[rank].payload_bytes, expected[rank].payload_bytes) << "rank " << rank;
    EXPECT_EQ(run.counters[rank].saved_bytes, expected[rank].saved_bytes) << "rank " << rank;
    EXPECT_EQ(run.counters[rank].wire_bytes, expected[rank].wire_bytes) << "rank " << rank;
    EXPECT_EQ(run.counters[rank].pairs_run, expected[rank].pairs_run) << "rank " << rank;
    EXPECT_EQ(run.counters[rank].pairs_skipped, expected[rank].pairs_skipped) << "rank " << rank;
  }
}

void make_classes_random(TokenBatch& batch, uint32_t num_levels, uint32_t seed) {
  std::mt19937 generator(seed);
  for (size_t t = 0; t < batch.size(); ++t) {
    batch.classes[t] = TokenClass{static_cast<uint8_t>(generator() % kNumTokenClasses)};
    batch.levels[t] = static_cast<uint8_t>(generator() % num_levels);
  }
}

class MoeLayerRanks : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, MoeLayerRanks, ::testing::Values(1, 2, 3, 4, 8));

TEST_P(MoeLayerRanks, EqualsTheReferenceWithExactFormats) {
  const MoeWeights weights = random_moe_weights(kShape, 1);
  const MoeSetup setup{.weights = weights, .world_size = GetParam(), .formats = kExactFormats};
  const TokenBatch batch = random_batch(29, kShape, GetParam(), 2);
  const MoeRun run = run_moe(setup, batch);
  expect_reference_routing(setup, batch, run);
  expect_reference(setup, batch, run);
}

TEST_P(MoeLayerRanks, EqualsTheReferenceWithinPayloadRounding) {
  const MoeWeights weights = random_moe_weights(kShape, 1);
  const MoeSetup setup{.weights = weights, .world_size = GetParam()};
  const TokenBatch batch = random_batch(29, kShape, GetParam(), 2);
  expect_reference(setup, batch, run_moe(setup, batch));
}

TEST_P(MoeLayerRanks, GivesATokenTheSameBitsOnAnyOwner) {
  const MoeWeights weights = random_moe_weights(kShape, 3);
  const MoeSetup setup{.weights = weights, .world_size = GetParam(), .levels = levels_with({{0.1f, 0.2f}})};
  TokenBatch batch = random_batch(23, kShape, GetParam(), 4);
  make_classes_random(batch, 2, 5);
  const auto expected = run_moe(setup, batch).outputs();
  for (int shift = 1; shift < GetParam(); ++shift) {
    for (int& owner : batch.owners) owner = (owner + 1) % GetParam();
    EXPECT_EQ(run_moe(setup, batch).outputs(), expected);
  }
  std::fill(batch.owners.begin(), batch.owners.end(), GetParam() - 1);  // the other ranks are empty
  EXPECT_EQ(run_moe(setup, batch).outputs(), expected);
}

TEST_P(MoeLayerRanks, GivesATokenTheSameBitsAloneAndAmongOthers) {
  const MoeWeights weights = random_moe_weights(kShape, 6);
  const MoeSetup setup{.weights = weights, .world_size = GetParam()};
  const TokenBatch batch = random_batch(19, kShape, GetParam(), 7);
  const auto together = run_moe(setup, batch).outputs();
  for (const size_t t : {size_t{0}, size_t{7}, size_t{18}}) {
    EXPECT_EQ(run_moe(setup, batch.subset({t})).outputs().at(0), together[t]);
  }
}

TEST_P(MoeLayerRanks, GivesTheSameBitsHoweverRowsFallIntoPasses) {
  const MoeWeights weights = random_moe_weights(kShape, 6);
  MoeSetup setup{.weights = weights, .world_size = GetParam()};
  const TokenBatch batch = random_batch(19, kShape, GetParam(), 7);
  const auto whole = run_moe(setup, batch).outputs();
  for (const int64_t rows : {1, 7}) {
    setup.max_rows_per_pass = rows;
    EXPECT_EQ(run_moe(setup, batch).outputs(), whole);
  }
}

TEST_P(MoeLayerRanks, RunsWithoutAnyToken) {
  const MoeWeights weights = random_moe_weights(kShape, 8);
  const MoeSetup setup{.weights = weights, .world_size = GetParam()};
  const MoeRun run = run_moe(setup, random_batch(0, kShape, GetParam(), 9));
  EXPECT_EQ(payload_bytes(run.total()), 0);
}

TEST_P(MoeLayerRanks, GivesZeroThresholdsTheBitsAndTrafficOfNoSkipping) {
  const MoeWeights weights = random_moe_weights(kShape, 10);
  TokenBatch batch = random_batch(21, kShape, GetParam(), 11);
  make_classes_random(batch, 1, 12);
  MoeSetup setup{.weights = weights, .world_size = GetParam()};
  const MoeRun plain = run_moe(setup, batch);
  setup.levels = levels_with({{0.0f, 0.0f}, {2.0f, 2.0f}});
  // One token skips everything, so that the batch takes the skipping path; the others are at tau = 0.
  std::fill(batch.levels.begin(), batch.levels.end(), uint8_t{1});
  EXPECT_EQ(run_moe(setup, batch).outputs(), plain.outputs());
  batch.levels[5] = 2;
  batch.classes[5] = TokenClass::kText;
  const auto mixed = run_moe(setup, batch).outputs();
  for (size_t t = 0; t < batch.size(); ++t) {
    if (t == 5) continue;
    EXPECT_EQ(mixed[t], plain.outputs()[t]);
  }
}

TEST_P(MoeLayerRanks, RunsOnlyProtectedTokensAtTheTopThreshold) {
  const MoeWeights weights = random_moe_weights(kShape, 13);
  TokenBatch batch = random_batch(21, kShape, GetParam(), 14);
  make_classes_random(batch, 1, 15);
  MoeSetup setup{.weights = weights, .world_size = GetParam()};
  const MoeRun plain = run_moe(setup, batch);
  setup.levels = levels_with({{2.0f, 2.0f}});
  std::fill(batch.levels.begin(), batch.levels.end(), uint8_t{1});
  const MoeRun skipped = run_moe(setup, batch);
  for (size_t t = 0; t < batch.size(); ++t) {
    const bool is_protected = batch.classes[t] == TokenClass::kProtected;
    const std::vector<float> zeros(static_cast<size_t>(kShape.hidden_size), 0.0f);
    EXPECT_EQ(skipped.tokens[t].out, is_protected ? plain.tokens[t].out : zeros);
  }
  EXPECT_EQ(skipped.total().pairs_run[0] + skipped.total().pairs_run[1], 0);
  EXPECT_EQ(skipped.total().pairs_run[2], plain.total().pairs_run[2]);
}

TEST_P(MoeLayerRanks, SendsNoPayloadByteWhenEveryPairIsSkipped) {
  const MoeWeights weights = random_moe_weights(kShape, 13);
  TokenBatch batch = random_batch(21, kShape, GetParam(), 14);
  std::fill(batch.levels.begin(), batch.levels.end(), uint8_t{1});
  const MoeSetup setup{.weights = weights, .world_size = GetParam(), .levels = levels_with({{2.0f, 2.0f}})};
  const MoeRun run = run_moe(setup, batch);
  EXPECT_EQ(payload_bytes(run.total()), 0);
  int64_t wire_bytes = 0;
  for (const auto& by_hop : run.total().wire_bytes) {
    for (const int64_t bytes : by_hop) wire_bytes += bytes;
  }
  EXPECT_EQ(wire_bytes, 28 * GetParam() * GetParam());  // only the exchange of counts
  for (const TokenResult& token : run.tokens) {
    EXPECT_TRUE(std::ranges::all_of(token.out, [](float value) { return value == 0.0f; }));
  }
}

TEST_P(MoeLayerRanks, KeepsTheWeightsOfSurvivors) {
  const MoeWeights weights = random_moe_weights(kShape, 16);
  TokenBatch batch = random_batch(31, kShape, GetParam(), 17);
  make_classes_random(batch, 2, 18);
  const MoeSetup setup{.weights = weights, .world_size = GetParam(), .levels = levels_with({{0.2f, 0.3f}})};
  const MoeRun run = run_moe(setup, batch);
  for (const TokenResult& token : run.tokens) EXPECT_EQ(token.kept_weights, token.routed_weights);
  EXPECT_GT(run.total().pairs_skipped[0], 0);
  expect_reference(setup, batch, run);
}

TEST_P(MoeLayerRanks, SendsFewerBytesAsThresholdsRise) {
  const MoeWeights weights = random_moe_weights(kShape, 19);
  TokenBatch batch = random_batch(40, kShape, GetParam(), 20);
  make_classes_random(batch, 1, 21);
  std::fill(batch.levels.begin(), batch.levels.end(), uint8_t{1});
  int64_t last = INT64_MAX;
  for (const float tau : {0.0f, 0.1f, 0.2f, 0.3f, 0.5f, 2.0f}) {
    const MoeSetup setup{.weights = weights, .world_size = GetParam(), .levels = levels_with({{tau, tau}})};
    const int64_t bytes = payload_bytes(run_moe(setup, batch).total());
    EXPECT_LE(bytes, last);
    last = bytes;
  }
}

// How many rows went from tokens to ranks, their own included.
int64_t rows_sent(const MoeSetup& setup, const TokenBatch& batch, const TrafficCounters& counters) {
  int64_t bytes = 0;
  for (const auto& by_class : counters.payload_bytes[0]) bytes = std::accumulate(by_class.begin(), by_class.end(), bytes);
  return bytes / dispatch_row_bytes(setup, batch.hidden_size);
}

TEST_P(MoeLayerRanks, SendATokenToNoMoreRanksThanThereAreNorThanItKeepsPairs) {
  const MoeWeights weights = random_moe_weights(kShape, 22);
  TokenBatch batch = random_batch(60, kShape, GetParam(), 23);
  std::fill(batch.levels.begin(), batch.levels.end(), uint8_t{1});
  for (const float tau : {0.0f, 0.15f, 0.25f, 0.35f, 0.5f}) {
    const MoeSetup setup{.weights = weights, .world_size = GetParam(), .levels = levels_with({{tau, tau}})};
    const MoeRun run = run_moe(setup, batch);
    int64_t most = 0, num_with_pairs = 0;
    for (const TokenResult& token : run.tokens) {
      const auto num_kept = static_cast<int64_t>(kept_pairs(token).size());
      most += std::min<int64_t>(num_kept, GetParam());
      num_with_pairs += num_kept > 0 ? 1 : 0;
    }
    EXPECT_LE(rows_sent(setup, batch, run.total()), most) << "tau " << tau;
    EXPECT_GE(rows_sent(setup, batch, run.total()), num_with_pairs) << "tau " << tau;
  }
}

// Two blocks of channels, the second one short; one level skips.
constexpr MoeShape kWideShape{.hidden_size = 137, .intermediate_size = 12, .num_experts = 13, .top_k = 4};

class MoeLayerCodedPayload : public ::testing::TestWithParam<std::tuple<int, PayloadFormat>> {
 protected:
  int world_size() const { return std::get<0>(GetParam()); }

  MoeSetup setup(DType combine_dtype) const {
    return {.weights = weights_,
            .world_size = world_size(),
            .formats = {.payload_format = std::get<1>(GetParam()), .combine_dtype = combine_dtype},
            .levels = levels_with({{0.2f, 0.3f}})};
  }

  TokenBatch batch(size_t num_tokens) const {
    TokenBatch batch = random_batch(num_tokens, kWideShape, world_size(), 4);
    make_classes_random(batch, 2, 5);
    return batch;
  }

  const MoeWeights weights_ = random_moe_weights(kWideShape, 3);
};

INSTANTIATE_TEST_SUITE_P(Formats, MoeLayerCodedPayload,
                         ::testing::Combine(::testing::Values(1, 2, 4),
                                            ::testing::Values(PayloadFormat::kInt8, PayloadFormat::kFp8)),
                         [](const auto& info) {
                           const int world_size = std::get<0>(info.param);
                           return std::to_string(world_size) + "Ranks" + std::string(name_of(std::get<1>(info.param)));
                         });

TEST_P(MoeLayerCodedPayload, EqualsTheReferenceOnRoundedRows) {
  for (const size_t num_tokens : {0, 1, 29}) {
    const MoeSetup exact = setup(DType::kF32);
    const TokenBatch tokens = batch(num_tokens);
    const MoeRun run = run_moe(exact, tokens);
    expect_reference_routing(exact, tokens, run);  // the router reads unrounded rows
    expect_reference(exact, tokens, run);
  }
}

TEST_P(MoeLayerCodedPayload, CountsTheBytesThatItSendsAndSaves) {
  const MoeSetup skipping = setup(DType::kBF16);
  const TokenBatch tokens = batch(31);
  const MoeRun run = run_moe(skipping, tokens);
  expect_recount(skipping, tokens, run);
  EXPECT_GT(run.total().pairs_skipped[0], 0);
}

TEST_P(MoeLayerCodedPayload, GivesATokenTheSameBitsOnAnyOwnerAndAlone) {
  const MoeSetup skipping = setup(DType::kBF16);
  TokenBatch tokens = batch(23);
  const auto expected = run_moe(skipping, tokens).outputs();
  for (int shift = 1; shift < world_size(); ++shift) {
    for (int& owner : tokens.owners) owner = (owner + 1) % world_size();
    EXPECT_EQ(run_moe(skipping, tokens).outputs(), expected);
  }
  EXPECT_EQ(run_moe(skipping, tokens.subset({7})).outputs().at(0), expected[7]);
}

TEST(MoeLayer, EqualsItselfOnOneRankUpToTheOrderOfSums) {
  const MoeWeights weights = random_moe_weights(kShape, 22);
  MoeSetup setup{.weights = weights, .world_size = 1, .formats = kExactFormats};
  TokenBatch batch = random_batch(25, kShape, 1, 23);
  const auto one = run_moe(setup, batch).outputs();
  for (const int world_size : {2, 3, 4, 8}) {
    setup.world_size = world_size;
    for (size_t t = 0; t < batch.size(); ++t) batch.owners[t] = static_cast<int>(t) % world_size;
    const auto many = run_moe(setup, batch).outputs();
    for (size_t t = 0; t < one.size(); ++t) {
      for (size_t i = 0; i < one[t].size(); ++i) EXPECT_NEAR(many[t][i], one[t][i], 1e-5);
    }
  }
}

// Formats, then the threshold of level 1.
class MoeLayerSourceSums : public testing::TestWithParam<std::tuple<PayloadFormat, DType, float>> {};

TEST_P(MoeLayerSourceSums, GiveTheSameBitsOverAnyNumberOfRanks) {
  const MoeWeights weights = random_moe_weights(kShape, 26);
  const auto [payload, combine, tau] = GetParam();
  MoeSetup setup{.weights = weights,
                 .formats = {.payload_format = payload, .combine_dtype = combine, .sum_place = SumPlace::kSource},
                 .levels = levels_with({{tau, tau}})};
  TokenBatch batch = random_batch(29, kShape, 1, 27);
  for (size_t t = 0; t < batch.size(); t += 2) batch.levels[t] = 1;
  const MoeRun one = run_moe(setup, batch);
  expect_reference(setup, batch, one);
  for (const int world_size : {2, 3, 5, 13}) {
    setup.world_size = world_size;
    for (size_t t = 0; t < batch.size(); ++t) batch.owners[t] = static_cast<int>(t * t) % world_size;
    EXPECT_EQ(run_moe(setup, batch).outputs(), one.outputs()) << world_size << " ranks";
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, MoeLayerSourceSums,
                         testing::Values(std::tuple(PayloadFormat::kBF16, DType::kF32, 0.2f),
                                         std::tuple(PayloadFormat::kF32, DType::kF32, 0.0f),
                                         std::tuple(PayloadFormat::kF32, DType::kF32, 2.0f),
                                         std::tuple(PayloadFormat::kBF16, DType::kBF16, 0.2f)));

TEST(MoeLayer, SendsARowForEachPairWhereTheSourceAddsUp) {
  const MoeWeights weights = random_moe_weights(kShape, 28);
  const MoeSetup setup{.weights = weights,
                       .world_size = 2,
                       .formats = {.payload_format = PayloadFormat::kF32,
                                   .combine_dtype = DType::kF32,
                                   .sum_place = SumPlace::kSource}};
  const TokenBatch batch = random_batch(11, kShape, 2, 29);
  const int64_t row_bytes = 2 * 4 * kShape.hidden_size;  // there and back
  EXPECT_EQ(payload_bytes(run_moe(setup, batch).total()), 11 * kShape.top_k * row_bytes);
}

TEST(MoeLayer, CountsBytesByHopOnTwoNodes) {
  const MoeWeights weights = random_moe_weights(kShape, 24);
  TokenBatch batch = random_batch(37, kShape, 4, 25);
  make_classes_random(batch, 2, 26);
  const MoeSetup setup{.weights = weights, .world_size = 4, .node_of_rank = {0, 0, 1, 1},
                       .formats = {.payload_format = PayloadFormat::kBF16, .combine_dtype = DType::kF32},
                       .levels = levels_with({{0.25f, 0.3f}})};
  const MoeRun run = run_moe(setup, batch);
  expect_recount(setup, batch, run);
  for (const Hop hop : {Hop::kLocal, Hop::kNode, Hop::kNetwork}) EXPECT_GT(run.total().total_payload_bytes(hop), 0);
  EXPECT_GT(run.total().saved_bytes[0][static_cast<size_t>(Hop::kNetwork)][0], 0);
}

struct FuzzCase {
  MoeShape shape;
  int world_size;
  size_t num_tokens;
  DispatchConfig formats;
  std::vector<int> node_of_rank;
  LevelTable levels;
};

FuzzCase random_case(std::mt19937& generator) {
  const auto pick = [&](std::initializer_list<int64_t> values) {
    return values.begin()[generator() % values.size()];
  };
  FuzzCase fuzz;
  fuzz.shape.hidden_size = pick({1, 2, 3, 16, 37, 64, 131});
  fuzz.shape.intermediate_size = pick({1, 5, 16, 17});
  fuzz.shape.num_experts = pick({1, 2, 3, 5, 7, 8, 13, 32});
  fuzz.shape.top_k = 1 + static_cast<int64_t>(generator()) % std::min<int64_t>(fuzz.shape.num_experts, 6);
  fuzz.world_size = static_cast<int>(pick({1, 2, 3, 4, 8}));
  fuzz.num_tokens = static_cast<size_t>(pick({0, 1, 2, 5, 17, 40}));
  fuzz.formats = {.payload_format = PayloadFormat{static_cast<uint8_t>(generator() % 4)},
                  .combine_dtype = generator() % 2 == 0 ? DType::kF32 : DType::kBF16};
  for (int rank = 0; rank < fuzz.world_size; ++rank) fuzz.node_of_rank.push_back(rank / 3);
  std::uniform_real_distribution<float> tau(0.0f, 0.6f);
  fuzz.levels = levels_with({{tau(generator), tau(generator)}, {tau(generator), 0.0f}, {2.0f, 2.0f}});
  fuzz.levels.levels[2].protect_top1 = true;
  return fuzz;
}

void expect_reference_skipping(const MoeSetup& setup, const TokenBatch& batch, const MoeRun& run) {
  for (size_t t = 0; t < batch.size(); ++t) {
    const OperatingPoint& level = setup.levels.levels[batch.levels[t]];
    ReferenceRule rule{.is_protected = batch.classes[t] == TokenClass::kProtected,
                       .protect_top1 = level.protect_top1};
    if (!rule.is_protected) rule.tau = level.tau[static_cast<size_t>(batch.classes[t])];
    EXPECT_EQ(run.tokens[t].kept_ids, reference_skip(run.tokens[t].routed_ids, run.tokens[t].routed_weights, rule));
  }
}

TEST(MoeLayer, AgreesWithTheReferenceOnRandomShapes) {
  std::mt19937 generator(20240607);
  for (uint32_t round = 0; round < 80; ++round) {
    const FuzzCase fuzz = random_case(generator);
    SCOPED_TRACE("round " + std::to_string(round) + ", ranks " + std::to_string(fuzz.world_size) + ", experts " +
                 std::to_string(fuzz.shape.num_experts) + ", top " + std::to_string(fuzz.shape.top_k) + ", hidden " +
                 std::to_string(fuzz.shape.hidden_size) + ", tokens " + std::to_string(fuzz.num_tokens) + ", payload " +
                 std::string(name_of(fuzz.formats.payload_format)));
    const MoeWeights weights = random_moe_weights(fuzz.shape, round);
    TokenBatch batch = random_batch(fuzz.num_tokens, fuzz.shape, fuzz.world_size, round + 1000);
    make_classes_random(batch, 4, round + 2000);
    const MoeSetup setup{.weights = weights,
                         .world_size = fuzz.world_size,
                         .node_of_rank = fuzz.node_of_rank,
                         .formats = fuzz.formats,
                         .levels = fuzz.levels,
                         .max_rows_per_pass = 1 + static_cast<int64_t>(generator() % 40)};
    const MoeRun run = run_moe(setup, batch);
    expect_reference_skipping(setup, batch, run);
    expect_reference(setup, batch, run);
    expect_recount(setup, batch, run);
  }
}

}  // namespace
}  // namespace skipper
