#include "expert_parallel/dispatch_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "expert_parallel/dispatch_buffers.h"
#include "expert_parallel/incoming_tokens.h"

namespace skipper {
namespace {

using ::testing::HasSubstr;
using ::testing::Property;
using ::testing::Throws;

constexpr DispatchCapacity kCapacity{.max_rows = 4, .top_k = 2};

TEST(PayloadLayout, PutsRowsThenPairCountsThenSlotsThenWeights) {
  const PayloadLayout layout{.num_tokens = 3, .num_pairs = 5, .row_bytes = 10};
  EXPECT_EQ(layout.pair_counts_offset(), 30);
  EXPECT_EQ(layout.slots_offset(), 42);
  EXPECT_EQ(layout.weights_offset(), 62);
  EXPECT_EQ(layout.num_bytes(), 82);
}

TEST(PayloadLayout, IsEmptyWithoutTokens) { EXPECT_EQ(layout_of({}, 512).num_bytes(), 0); }

TEST(DispatchCounts, AreAcceptedUpToTheCapacity) {
  EXPECT_NO_THROW(check_counts({}, kCapacity, 0));
  EXPECT_NO_THROW(check_counts({.tokens = {2, 1, 1}, .unskipped_tokens = {2, 2, 1}, .pairs = 8}, kCapacity, 0));
}

class BadCounts : public ::testing::TestWithParam<DispatchCounts> {};

TEST_P(BadCounts, AreRefusedByNamingTheSource) {
  EXPECT_THAT([] { check_counts(GetParam(), kCapacity, 3); },
              Throws<CommError>(Property(&CommError::what, HasSubstr("rank 3"))));
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, BadCounts,
    ::testing::Values(DispatchCounts{.tokens = {5, 0, 0}, .unskipped_tokens = {5, 0, 0}, .pairs = 5},  // no room
                      DispatchCounts{.tokens = {3, 2, 0}, .unskipped_tokens = {3, 2, 0}, .pairs = 5},
                      DispatchCounts{.tokens = {INT32_MAX, INT32_MAX, 2}, .unskipped_tokens = {INT32_MAX, INT32_MAX, 2}},
                      DispatchCounts{.tokens = {-1, 2, 0}, .unskipped_tokens = {0, 2, 0}, .pairs = 1},
                      DispatchCounts{.tokens = {2, 0, 0}, .unskipped_tokens = {1, 0, 0}, .pairs = 2},
                      DispatchCounts{.tokens = {2, 0, 0}, .unskipped_tokens = {2, 0, 0}, .pairs = 1},
                      DispatchCounts{.tokens = {2, 0, 0}, .unskipped_tokens = {2, 0, 0}, .pairs = 5},
                      DispatchCounts{.tokens = {0, 0, 0}, .unskipped_tokens = {0, 0, 0}, .pairs = -1}));

// Two sources, two tokens of one bf16 value each, local experts 0..2: source 0 sends nothing, source 1 sends
// token 0 → slots 2, 0 and token 1 → slot 2.
class IncomingMessages : public ::testing::Test {
 protected:
  IncomingMessages() : buffers_({.max_tokens = 4, .hidden_size = 1, .top_k = 2, .world_size = 2, .max_local_experts = 3}, {}) {
    buffers_.received_counts[1] = {.tokens = {2, 0, 0}, .unskipped_tokens = {2, 0, 0}, .pairs = 3};
    put(0, bf16(5.0f));
    put(2, bf16(7.0f));
    put<int32_t>(4, 2);
    put<int32_t>(8, 1);
    put<int32_t>(12, 2);
    put<int32_t>(16, 0);
    put<int32_t>(20, 2);
    for (int i = 0; i < 3; ++i) put<float>(24 + 4 * i, 0.5f);
  }

  template <typename T>
  void put(int64_t offset, T value) {
    std::memcpy(buffers_.receive_message.bytes() + offset, &value, sizeof(T));
  }
  std::vector<int32_t> first(const Tensor& tensor, size_t count) const {
    const auto values = tensor.span<int32_t>().first(count);
    return {values.begin(), values.end()};
  }

  const IncomingTokens tokens_{.num_tokens = 2, .num_pairs = 3, .num_local_experts = 3};
  DispatchBuffers buffers_;
  Stream stream_;
};

TEST_F(IncomingMessages, AreReadAndSortedByExpert) {
  unpack_incoming(tokens_, buffers_, stream_);
  sort_by_expert(tokens_, buffers_);
  EXPECT_EQ(first(buffers_.pair_offsets, 3), (std::vector<int32_t>{0, 2, 3}));
  EXPECT_EQ(first(buffers_.row_offsets, 4), (std::vector<int32_t>{0, 1, 1, 3}));
  EXPECT_EQ(first(buffers_.row_index, 3), (std::vector<int32_t>{0, 0, 1}));
  EXPECT_EQ(first(buffers_.row_of_pair, 3), (std::vector<int32_t>{1, 0, 2}));
  EXPECT_EQ(static_cast<float>(buffers_.received_rows.data<bf16>()[1]), 7.0f);
}

TEST_F(IncomingMessages, AreRefusedWhenASlotIsNotHere) {
  for (const int32_t slot : {3, -1, INT32_MAX}) {
    put<int32_t>(16, slot);
    EXPECT_THAT([&] { unpack_incoming(tokens_, buffers_, stream_); },
                Throws<CommError>(Property(&CommError::what, HasSubstr("rank 1: expert slot " + std::to_string(slot)))));
  }
}

TEST_F(IncomingMessages, AreRefusedWhenPairCountsDoNotAddUp) {
  put<int32_t>(8, 2);
  EXPECT_THROW(unpack_incoming(tokens_, buffers_, stream_), CommError);
}

TEST_F(IncomingMessages, AreRefusedWhenATokenHasMoreExpertsThanTopKOrNone) {
  for (const int32_t count : {0, 3, -5}) {
    put<int32_t>(4, count);
    EXPECT_THROW(unpack_incoming(tokens_, buffers_, stream_), CommError);
  }
}

TEST(PayloadFormat, HasANameThatIsReadBack) {
  for (const PayloadFormat format : {PayloadFormat::kF32, PayloadFormat::kBF16, PayloadFormat::kInt8, PayloadFormat::kFp8}) {
    EXPECT_EQ(parse_payload_format(std::string(name_of(format)), "key"), format);
  }
}

TEST(PayloadFormat, RefusesOtherNamesByListingItsOwn) {
  for (const char* name : {"", "f16", "INT8", "int8 ", "fp4"}) {
    EXPECT_THAT([&] { parse_payload_format(name, "key"); },
                Throws<InvalidFile>(Property(&InvalidFile::what, HasSubstr("use one of f32, bf16, int8, fp8"))));
  }
}

TEST(PayloadFormat, KnowsTheBytesOfARow) {
  EXPECT_EQ(row_bytes(PayloadFormat::kF32, 300), 1200);
  EXPECT_EQ(row_bytes(PayloadFormat::kBF16, 300), 600);
  EXPECT_EQ(row_bytes(PayloadFormat::kInt8, 300), 300 + 3 * 4);
  EXPECT_EQ(row_bytes(PayloadFormat::kFp8, 256), 256 + 2 * 4);
}

TEST(DispatchConfig, RefusesFormatsThatSumsCannotTravelIn) {
  EXPECT_NO_THROW(DispatchConfig{}.validate());
  EXPECT_THROW((DispatchConfig{.combine_dtype = DType::kU8}.validate()), InvalidFile);
  EXPECT_THROW((DispatchConfig{.combine_dtype = DType::kI32}.validate()), InvalidFile);
}

}  // namespace
}  // namespace skipper
