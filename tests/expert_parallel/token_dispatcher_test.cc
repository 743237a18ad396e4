#include "expert_parallel/token_dispatcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>

#include "base/error.h"
#include "tests/support/row_code_reference.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

struct Sizes {
  int world_size;
  int num_experts;
  int64_t top_k;
  int64_t hidden_size;
};

// One rank's micro-batch with routing made by hand.
struct Batch {
  Tensor hidden;
  Routing routing;
  TokenPolicies policies;

  Batch(int64_t num_tokens, const Sizes& sizes)
      : hidden(Tensor::empty({num_tokens, sizes.hidden_size}, DType::kF32)),
        routing{.expert_ids = Tensor::empty({num_tokens, sizes.top_k}, DType::kI32),
                .expert_weights = Tensor::empty({num_tokens, sizes.top_k}, DType::kF32)},
        policies(TokenPolicies::defaults(num_tokens)) {}

  int64_t num_tokens() const { return hidden.dim(0); }
};

// Everything one rank needs to dispatch.
class Rank {
 public:
  Rank(Communicator& data, const Sizes& sizes)
      : topology_(std::vector<int>(static_cast<size_t>(sizes.world_size), 0)),
        placement_(ExpertPlacement::contiguous(
            {.num_moe_layers = 1, .num_experts = sizes.num_experts, .world_size = sizes.world_size})),
        dispatcher_({data, topology_, placement_, counters_}),
        sizes_(sizes) {}

  DispatchBuffers make_buffers(int64_t max_tokens, const DispatchConfig& formats) const {
    return {{.max_tokens = max_tokens,
             .hidden_size = sizes_.hidden_size,
             .top_k = sizes_.top_k,
             .world_size = sizes_.world_size,
             .max_local_experts = placement_.max_local_experts()},
            formats};
  }

  DispatchHandle start(const Batch& batch, DispatchBuffers& buffers) {
    return dispatcher_.start_dispatch({.hidden = batch.hidden,
                                       .routing = batch.routing,
                                       .routed_ids = batch.routing.expert_ids,
                                       .policies = batch.policies},
                                      buffers, stream_);
  }

  // The experts are the identity.
  void compute_and_start_combine(DispatchHandle& handle) {
    const ExpertBatch batch = dispatcher_.finish_dispatch(handle, stream_);
    Tensor output = Tensor::empty({batch.row_index.num_elements(), sizes_.hidden_size}, DType::kF32);
    for (int64_t r = 0; r < output.dim(0); ++r) {
      for (int64_t h = 0; h < sizes_.hidden_size; ++h) output.row<float>(r)[h] = value(batch, r, h);
    }
    dispatcher_.start_combine(handle, output, stream_);
  }

  Tensor finish(DispatchHandle& handle) {
    Tensor out = Tensor::empty({handle.num_tokens(), sizes_.hidden_size}, DType::kF32);
    for (float& element : out.span<float>()) element = 777.0f;  // must be overwritten
    dispatcher_.finish_combine(handle, out, stream_);
    return out;
  }

  Tensor round_trip(const Batch& batch, const DispatchConfig& formats) {
    DispatchBuffers buffers = make_buffers(batch.num_tokens(), formats);
    DispatchHandle handle = start(batch, buffers);
    compute_and_start_combine(handle);
    return finish(handle);
  }

  const TrafficCounters& counters() const { return counters_; }

 private:
  static float value(const ExpertBatch& batch, int64_t row, int64_t column) {
    const int32_t token = batch.row_index.data<int32_t>()[row];
    return batch.tokens.dtype() == DType::kF32 ? batch.tokens.row<float>(token)[column]
                                               : static_cast<float>(batch.tokens.row<bf16>(token)[column]);
  }

  ClusterTopology topology_;
  ExpertPlacement placement_;
  TrafficCounters counters_;
  TokenDispatcher dispatcher_;
  Sizes sizes_;
  Stream stream_;
};

// Distinct random experts; weights 1/2, 1/4, ..., the last one twice, so that they sum to 1 exactly.
void route_at_random(Batch& batch, const Sizes& sizes, std::mt19937& generator) {
  std::vector<int32_t> experts(static_cast<size_t>(sizes.num_experts));
  std::iota(experts.begin(), experts.end(), 0);
  for (int64_t t = 0; t < batch.num_tokens(); ++t) {
    std::shuffle(experts.begin(), experts.end(), generator);
    std::copy_n(experts.begin(), sizes.top_k, batch.routing.expert_ids.row<int32_t>(t));
    float weight = 1.0f;
    for (int64_t j = 0; j < sizes.top_k; ++j) {
      if (j + 1 < sizes.top_k) weight *= 0.5f;
      batch.routing.expert_weights.row<float>(t)[j] = weight;
    }
  }
}

Batch random_integers(int64_t num_tokens, const Sizes& sizes, uint32_t seed) {
  std::mt19937 generator(seed);
  Batch batch(num_tokens, sizes);
  // Small integers: exact in bf16, as are their products with the weights and all partial sums.
  for (float& value : batch.hidden.span<float>()) value = static_cast<float>(static_cast<int>(generator() % 15) - 7);
  route_at_random(batch, sizes, generator);
  return batch;
}

class TokenDispatcherSizes : public ::testing::TestWithParam<Sizes> {};

TEST_P(TokenDispatcherSizes, CombineRestoresTokensWhenExpertsAreIdentity) {
  const Sizes sizes = GetParam();
  spawn_ranks(sizes.world_size, [&](Communicator& data) {
    Rank rank(data, sizes);
    const auto seed = static_cast<uint32_t>(data.rank()) + 1;
    const Batch batch = random_integers(3 + data.rank(), sizes, seed);
    // All ranks have buffers for the same number of tokens, as in a server.
    DispatchBuffers buffers = rank.make_buffers(sizes.world_size + 3, {});
    for (int repeat = 0; repeat < 2; ++repeat) {
      DispatchHandle handle = rank.start(batch, buffers);
      rank.compute_and_start_combine(handle);
      const Tensor out = rank.finish(handle);
      EXPECT_TRUE(std::ranges::equal(out.span<float>(), batch.hidden.span<float>()));
    }
  });
}

TEST_P(TokenDispatcherSizes, CombineRestoresRandomTokensWithinPayloadRounding) {
  const Sizes sizes = GetParam();
  spawn_ranks(sizes.world_size, [&](Communicator& data) {
    Rank rank(data, sizes);
    std::mt19937 generator(static_cast<uint32_t>(data.rank()) + 40);
    Batch batch = random_integers(5, sizes, 9);
    for (float& value : batch.hidden.span<float>()) value = std::normal_distribution<float>()(generator);
    const Tensor rounded = rank.round_trip(batch, {});
    const Tensor exact = rank.round_trip(batch, {.payload_format = PayloadFormat::kF32, .combine_dtype = DType::kF32});
    for (size_t i = 0; i < exact.span<float>().size(); ++i) {
      const float expected = batch.hidden.span<float>()[i];
      // One rounding to bf16 on the way out (2^-8 relative) and one of each partial sum on the way back.
      EXPECT_NEAR(rounded.span<float>()[i], expected, std::abs(expected) * 2.1f / 256.0f);
      EXPECT_NEAR(exact.span<float>()[i], expected, std::abs(expected) * 1e-6f);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, TokenDispatcherSizes,
                         ::testing::Values(Sizes{1, 1, 1, 1}, Sizes{1, 8, 2, 16}, Sizes{2, 8, 2, 16}, Sizes{3, 8, 4, 7},
                                           Sizes{4, 8, 2, 33}, Sizes{4, 5, 1, 3}, Sizes{8, 3, 2, 5}, Sizes{8, 32, 4, 64}),
                         [](const auto& info) {
                           return std::to_string(info.param.world_size) + "Ranks" +
                                  std::to_string(info.param.num_experts) + "ExpertsTop" +
                                  std::to_string(info.param.top_k) + "Hidden" + std::to_string(info.param.hidden_size);
                         });

TEST(TokenDispatcher, TakesPartWithoutTokens) {
  const Sizes sizes{4, 8, 2, 6};
  spawn_ranks(4, [&](Communicator& data) {
    Rank rank(data, sizes);
    DispatchBuffers buffers = rank.make_buffers(9, {});
    const Batch batch = random_integers(data.rank() == 2 ? 9 : 0, sizes, 4);
    DispatchHandle handle = rank.start(batch, buffers);
    rank.compute_and_start_combine(handle);
    const Tensor out = rank.finish(handle);
    EXPECT_TRUE(std::ranges::equal(out.span<float>(), batch.hidden.span<float>()));
  });
}

TEST(TokenDispatcher, KeepsSeveralMicroBatchesApartInFlight) {
  const Sizes sizes{3, 7, 3, 5};
  spawn_ranks(3, [&](Communicator& data) {
    Rank rank(data, sizes);
    const Batch first = random_integers(4, sizes, 10);
    const Batch second = random_integers(6, sizes, 11);
    DispatchBuffers first_buffers = rank.make_buffers(6, {});
    DispatchBuffers second_buffers = rank.make_buffers(6, {});
    DispatchHandle first_handle = rank.start(first, first_buffers);
    DispatchHandle second_handle = rank.start(second, second_buffers);
    rank.compute_and_start_combine(first_handle);
    rank.compute_and_start_combine(second_handle);
    const Tensor second_out = rank.finish(second_handle);
    const Tensor first_out = rank.finish(first_handle);
    EXPECT_TRUE(std::ranges::equal(first_out.span<float>(), first.hidden.span<float>()));
    EXPECT_TRUE(std::ranges::equal(second_out.span<float>(), second.hidden.span<float>()));
  });
}

// Every rank sends all its tokens to rank 0, which must have room for them.
TEST(TokenDispatcher, TakesAllTokensOfAllRanksOnOneRank) {
  const Sizes sizes{4, 8, 2, 6};
  spawn_ranks(4, [&](Communicator& data) {
    Rank rank(data, sizes);
    Batch batch = random_integers(7, sizes, 12);
    for (int64_t t = 0; t < 7; ++t) {
      batch.routing.expert_ids.row<int32_t>(t)[0] = 1;
      batch.routing.expert_ids.row<int32_t>(t)[1] = 0;
    }
    const Tensor out = rank.round_trip(batch, {});
    EXPECT_TRUE(std::ranges::equal(out.span<float>(), batch.hidden.span<float>()));
    const Hop hop = data.rank() == 0 ? Hop::kLocal : Hop::kNode;
    const auto& sent = rank.counters().payload_bytes[static_cast<size_t>(Direction::kDispatch)];
    EXPECT_EQ(sent[static_cast<size_t>(hop)][0], 7 * 6 * 2);  // 7 rows, once each, although both experts are there
  });
}

// Sums come back in f32, so that what travelled shows.
class TokenDispatcherCodes : public ::testing::TestWithParam<PayloadFormat> {
 protected:
  RowCode code() const { return row_code_of(GetParam()); }
  DispatchConfig formats() const { return {.payload_format = GetParam(), .combine_dtype = DType::kF32}; }

  // What identity experts make of the rows.
  void expect_rounded(const Tensor& out, const Tensor& hidden) const {
    for (int64_t t = 0; t < hidden.dim(0); ++t) {
      const auto expected = reference_coded_row(code(), hidden.at(t).span<float>());
      EXPECT_TRUE(std::ranges::equal(out.at(t).span<float>(), expected)) << "token " << t;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Formats, TokenDispatcherCodes, ::testing::Values(PayloadFormat::kInt8, PayloadFormat::kFp8),
                         [](const auto& info) { return std::string(name_of(info.param)); });

Batch random_normals(int64_t num_tokens, const Sizes& sizes, uint32_t seed) {
  Batch batch = random_integers(num_tokens, sizes, seed);
  std::mt19937 generator(seed);
  for (float& value : batch.hidden.span<float>()) value = std::normal_distribution<float>()(generator);
  return batch;
}

// One expert each, its weight 1: the token's own rank and the others by turns.
TEST_P(TokenDispatcherCodes, RoundTokensOfTheirOwnRankLikeThoseOfOthers) {
  for (const int64_t hidden_size : {1, 16, 127, 128, 131, 300}) {
    const Sizes sizes{3, 6, 1, hidden_size};
    spawn_ranks(3, [&](Communicator& data) {
      Rank rank(data, sizes);
      Batch batch = random_normals(13, sizes, static_cast<uint32_t>(data.rank()) + 1);
      for (int32_t t = 0; t < 13; ++t) batch.routing.expert_ids.row<int32_t>(t)[0] = t % 6;
      expect_rounded(rank.round_trip(batch, formats()), batch.hidden);
    });
  }
}

TEST_P(TokenDispatcherCodes, TakeNoTokenAndOneToken) {
  const Sizes sizes{4, 8, 1, 131};
  for (const int64_t num_tokens : {0, 1}) {
    spawn_ranks(4, [&](Communicator& data) {
      Rank rank(data, sizes);
      DispatchBuffers buffers = rank.make_buffers(1, formats());
      const Batch batch = random_normals(data.rank() == 2 ? num_tokens : 0, sizes, 4);
      for (int repeat = 0; repeat < 2; ++repeat) {
        DispatchHandle handle = rank.start(batch, buffers);
        rank.compute_and_start_combine(handle);
        expect_rounded(rank.finish(handle), batch.hidden);
      }
    });
  }
}

TEST_P(TokenDispatcherCodes, TakeAllTokensToOneRankAndCountCodesAndScales) {
  const Sizes sizes{4, 8, 1, 131};
  spawn_ranks(4, [&](Communicator& data) {
    Rank rank(data, sizes);
    Batch batch = random_normals(7, sizes, 12);
    for (int64_t t = 0; t < 7; ++t) batch.routing.expert_ids.row<int32_t>(t)[0] = 1;
    expect_rounded(rank.round_trip(batch, formats()), batch.hidden);
    const auto hop = static_cast<size_t>(data.rank() == 0 ? Hop::kLocal : Hop::kNode);
    const TrafficCounters& counters = rank.counters();
    EXPECT_EQ(counters.payload_bytes[static_cast<size_t>(Direction::kDispatch)][hop][0], 7 * (131 + 2 * 4));
    const int64_t counts = 28 * (data.rank() == 0 ? 1 : 3);  // of this hop
    EXPECT_EQ(counters.wire_bytes[static_cast<size_t>(Direction::kDispatch)][hop], 7 * (131 + 2 * 4 + 4 + 8) + counts);
  });
}

// A NaN spoils its block of channels of its token, on any rank, and nothing else.
TEST_P(TokenDispatcherCodes, KeepANanWithinItsBlockOfItsToken) {
  const Sizes sizes{2, 4, 1, 131};
  spawn_ranks(2, [&](Communicator& data) {
    Rank rank(data, sizes);
    Batch batch = random_normals(4, sizes, 20);
    for (int32_t t = 0; t < 4; ++t) batch.routing.expert_ids.row<int32_t>(t)[0] = t;
    for (const int64_t t : {0, 3}) batch.hidden.row<float>(t)[129] = std::numeric_limits<float>::quiet_NaN();
    const Tensor out = rank.round_trip(batch, formats());
    for (int64_t t = 0; t < 4; ++t) {
      for (int64_t h = 0; h < 131; ++h) {
        EXPECT_EQ(std::isnan(out.row<float>(t)[h]), (t == 0 || t == 3) && h >= 128) << "token " << t << " channel " << h;
      }
    }
  });
}

int64_t sum_by_class(const std::array<int64_t, kNumTokenClasses>& bytes) { return bytes[0] + bytes[1] + bytes[2]; }

// What the experts of the token's own rank make of it: everything, and its share by weight.
float own_share(const Batch& batch, int64_t token, int32_t own_rank, int32_t experts_per_rank) {
  float share = 0.0f;
  for (int64_t j = 0; j < batch.routing.expert_ids.dim(1); ++j) {
    const bool is_own = batch.routing.expert_ids.row<int32_t>(token)[j] / experts_per_rank == own_rank;
    if (is_own) share += batch.routing.expert_weights.row<float>(token)[j];
  }
  return share;
}

class TokenDispatcherWithoutRows : public ::testing::TestWithParam<PayloadFormat> {};

INSTANTIATE_TEST_SUITE_P(Formats, TokenDispatcherWithoutRows,
                         ::testing::Values(PayloadFormat::kF32, PayloadFormat::kBF16, PayloadFormat::kInt8, PayloadFormat::kFp8),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(TokenDispatcherWithoutRows, PutsZerosInPlaceOfOtherRanksSums) {
  const Sizes sizes{3, 6, 2, 131};
  spawn_ranks(3, [&](Communicator& data) {
    Rank rank(data, sizes);
    // One magnitude: exact in every format.
    Batch batch = random_integers(11, sizes, static_cast<uint32_t>(data.rank()) + 30);
    for (float& value : batch.hidden.span<float>()) value = value > 0.0f ? 1.0f : -1.0f;
    DispatchBuffers buffers = rank.make_buffers(11, {.payload_format = GetParam(), .payload = PayloadTravel::kOff});
    for (Tensor* poisoned : {&buffers.received_rows, &buffers.returned_sums}) {
      std::memset(poisoned->bytes(), 0x7f, poisoned->num_bytes());
    }
    for (int repeat = 0; repeat < 2; ++repeat) {
      DispatchHandle handle = rank.start(batch, buffers);
      rank.compute_and_start_combine(handle);
      const Tensor out = rank.finish(handle);
      for (int64_t t = 0; t < batch.num_tokens(); ++t) {
        const float share = own_share(batch, t, data.rank(), 2);
        for (int64_t h = 0; h < sizes.hidden_size; ++h) EXPECT_EQ(out.row<float>(t)[h], share * batch.hidden.row<float>(t)[h]);
      }
    }
  });
}

TEST_P(TokenDispatcherWithoutRows, SendsTheSameListsAndNoPayload) {
  const Sizes sizes{4, 8, 2, 131};
  spawn_ranks(4, [&](Communicator& data) {
    const Batch batch = random_integers(7, sizes, static_cast<uint32_t>(data.rank()) + 60);
    Rank on(data, sizes), off(data, sizes);
    on.round_trip(batch, {.payload_format = GetParam()});
    off.round_trip(batch, {.payload_format = GetParam(), .payload = PayloadTravel::kOff});
    for (size_t direction = 0; direction < kNumDirections; ++direction) {
      for (size_t hop = 0; hop < kNumHops; ++hop) {
        EXPECT_EQ(sum_by_class(off.counters().payload_bytes[direction][hop]), 0);
        EXPECT_EQ(off.counters().wire_bytes[direction][hop],
                  on.counters().wire_bytes[direction][hop] - sum_by_class(on.counters().payload_bytes[direction][hop]));
      }
    }
  });
}

TEST(TokenDispatcher, GivesZeroToTokensWithoutExperts) {
  const Sizes sizes{2, 4, 2, 3};
  spawn_ranks(2, [&](Communicator& data) {
    Rank rank(data, sizes);
    Batch batch = random_integers(4, sizes, 13);
    for (const int64_t t : {1, 3}) std::fill_n(batch.routing.expert_ids.row<int32_t>(t), 2, kNoExpert);
    const Tensor out = rank.round_trip(batch, {});
    for (const int64_t t : {1, 3}) EXPECT_TRUE(std::ranges::all_of(out.at(t).span<float>(), [](float v) { return v == 0.0f; }));
    for (const int64_t t : {0, 2}) EXPECT_TRUE(std::ranges::equal(out.at(t).span<float>(), batch.hidden.at(t).span<float>()));
  });
}

TEST(TokenDispatcher, AddsAnExpertTwiceWhenATokenNamesItTwice) {
  const Sizes sizes{2, 4, 2, 3};
  spawn_ranks(2, [&](Communicator& data) {
    Rank rank(data, sizes);
    Batch batch = random_integers(4, sizes, 14);
    for (int32_t& expert : batch.routing.expert_ids.span<int32_t>()) expert = 3;
    const Tensor out = rank.round_trip(batch, {});
    EXPECT_TRUE(std::ranges::equal(out.span<float>(), batch.hidden.span<float>()));
  });
}

TEST(TokenDispatcher, RefusesMoreTokensThanTheConfiguredCapacity) {
  const Sizes sizes{2, 4, 2, 3};
  const auto mismatched = [&](Communicator& data) {
    Rank rank(data, sizes);
    DispatchBuffers buffers = rank.make_buffers(data.rank() == 0 ? 2 : 8, {});
    const Batch batch = random_integers(data.rank() == 0 ? 2 : 8, sizes, 15);
    DispatchHandle handle = rank.start(batch, buffers);
    rank.compute_and_start_combine(handle);
    rank.finish(handle);
  };
  EXPECT_THROW(spawn_ranks(2, mismatched), CommError);
}

}  // namespace
}  // namespace skipper
