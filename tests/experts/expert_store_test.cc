#include "experts/expert_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "experts/gate_up_panels.h"
#include "tensor/device_runtime.h"

namespace skipper {
namespace {

const WeightFormat kBF16;
const WeightFormat kInt8 = parse_weight_format("int8-g32", "format");
const WeightFormat kInt4 = parse_weight_format("int4a-g64", "format");

ExpertStoreConfig two_layers() {
  return {.hidden_size = 3, .intermediate_size = 21, .slots = {{{4, kBF16}, {5, kInt4}, {6, kInt8}}, {}}};
}

Tensor constant(const Shape& shape, float value) {
  Tensor tensor = Tensor::empty(shape, DType::kF32);
  std::ranges::fill(tensor.span<float>(), value);
  return tensor;
}

TEST(ExpertStore, KeepsEachExpertInItsFormatAndNoByteMore) {
  ExpertStore store(two_layers());
  store.freeze();
  EXPECT_EQ(store.num_layers(), 2);
  EXPECT_EQ(store.num_local_experts(0), 3);
  EXPECT_EQ(store.num_local_experts(1), 0);
  size_t expected = 0;
  for (const WeightFormat& format : {kBF16, kInt4, kInt8}) {
    expected += packed_bytes(format, {.num_rows = 64, .num_columns = 3});
    expected += packed_bytes(format, {.num_rows = 3, .num_columns = 21});
  }
  EXPECT_EQ(store.num_bytes(), expected);
  EXPECT_EQ(store.gate_up(0)[1].format, kInt4);
  EXPECT_EQ(store.gate_up(0)[1].num_panels(), 4);
  EXPECT_EQ(store.down(0)[2].format, kInt8);
  EXPECT_TRUE(store.down(1).empty());
}

TEST(ExpertStore, NamesSlotAndFormatOfAnExpert) {
  const ExpertStore store(two_layers());
  const ExpertHandle handle = store.handle({.layer = 0, .expert = 6});
  EXPECT_EQ(handle.slot, 2);
  EXPECT_EQ(handle.format, kInt8);
  EXPECT_EQ(handle.tier, ExpertTier::kHost);
}

TEST(ExpertStore, GivesEveryMatrixMemoryOfItsOwn) {
  ExpertStore store(two_layers());
  float value = 1.0f;
  for (int slot = 0; slot < 3; ++slot, value += 2.0f) {
    ExpertMatrices target = store.matrices(0, slot);
    pack_gate_up(constant({21, 3}, value), constant({21, 3}, value), target.gate_up);
    pack_into(constant({3, 21}, value + 1.0f), target.down);
  }
  store.freeze();
  value = 1.0f;
  for (size_t slot = 0; slot < 3; ++slot, value += 2.0f) {
    const Tensor down = unpack(store.down(0)[slot]);
    for (const float weight : down.span<float>()) EXPECT_NEAR(weight, value + 1.0f, 0.05f) << slot;
    EXPECT_NEAR(unpack(store.gate_up(0)[slot]).row<float>(52)[2], value, 0.05f) << slot;
  }
}

TEST(ExpertStore, GivesExpertsOnDiskNoMemory) {
  ExpertStoreConfig config = two_layers();
  config.slots[0][1].tier = ExpertTier::kDisk;
  ExpertStore store(config);
  store.freeze();
  EXPECT_FALSE(store.gate_up(0)[1].defined());
  EXPECT_TRUE(store.gate_up(0)[2].defined());
  EXPECT_EQ(store.disk_bytes(), packed_bytes(kInt4, {64, 3}) + packed_bytes(kInt4, {3, 21}));
  ExpertStore whole(two_layers());
  EXPECT_EQ(store.num_bytes() + store.disk_bytes(), whole.num_bytes());
}

// One expert in the store's memory, one in memory that stands for the mapping.
ExpertStoreConfig host_and_mapped() {
  return {.hidden_size = 3, .intermediate_size = 21, .slots = {{{4, kInt4}, {5, kBF16, ExpertTier::kMapped}}}};
}

ExpertMatrices matrices_elsewhere() {
  return {empty_packed(kBF16, joined_shape({21, 3})), empty_packed(kBF16, {3, 21})};
}

TEST(ExpertStore, UsesMappedExpertsWhereTheyLie) {
  ExpertStoreConfig config = host_and_mapped();
  config.bf16_activations = ActivationFormat::kF32;
  ExpertStore store(config);
  const ExpertMatrices elsewhere = matrices_elsewhere();
  store.place(0, 1, elsewhere);
  store.freeze();
  EXPECT_EQ(store.gate_up(0)[1].codes.bytes(), elsewhere.gate_up.codes.bytes());
  EXPECT_EQ(store.down(0)[1].codes.bytes(), elsewhere.down.codes.bytes());
  EXPECT_EQ(store.down(0)[1].activations, ActivationFormat::kF32);
  EXPECT_EQ(store.handle({.layer = 0, .expert = 5}).tier, ExpertTier::kMapped);
  EXPECT_EQ(store.handle({.layer = 0, .expert = 4}).tier, ExpertTier::kHost);
}

TEST(ExpertStore, CountsMappedBytesApart) {
  const ExpertStore store(host_and_mapped());
  const size_t mapped = packed_bytes(kBF16, {64, 3}) + packed_bytes(kBF16, {3, 21});
  EXPECT_EQ(store.mapped_bytes(), mapped);
  EXPECT_EQ(store.num_bytes(), mapped + packed_bytes(kInt4, {64, 3}) + packed_bytes(kInt4, {3, 21}));
  EXPECT_EQ(ExpertStore(two_layers()).mapped_bytes(), 0u);
}

TEST(ExpertStore, TellsBF16WeightsWhatActivationsBecome) {
  ExpertStoreConfig config = two_layers();
  EXPECT_EQ(ExpertStore(config).matrices(0, 0).down.activations, ActivationFormat::kBF16);
  config.bf16_activations = ActivationFormat::kF32;
  EXPECT_EQ(ExpertStore(config).matrices(0, 0).down.activations, ActivationFormat::kF32);
  EXPECT_EQ(ExpertStore(config).matrices(0, 1).down.activations, ActivationFormat::kInt8);
}

// The host's part of a layer whose other experts lie in GPU memory.
TEST(ExpertStore, ReleasesALayerButForTheSlotsToBeKept) {
  ExpertStore store(host_and_mapped());
  store.place(0, 1, matrices_elsewhere());
  ExpertMatrices own = store.matrices(0, 0);
  std::ranges::fill(own.gate_up.codes.span<uint8_t>(), uint8_t{0x5a});
  std::ranges::fill(own.down.codes.span<uint8_t>(), uint8_t{0x17});
  const std::byte* before = own.down.codes.bytes();
  store.freeze();
  const auto is_filled_with = [](const PackedMatrix& matrix, uint8_t value) {
    return std::ranges::all_of(matrix.codes.span<uint8_t>(), [&](uint8_t code) { return code == value; });
  };
  store.release(0, std::vector<int32_t>{0});
  ASSERT_TRUE(store.down(0)[0].defined());
  EXPECT_NE(store.down(0)[0].codes.bytes(), before);
  EXPECT_TRUE(is_filled_with(store.gate_up(0)[0], 0x5a));
  EXPECT_TRUE(is_filled_with(store.down(0)[0], 0x17));
  EXPECT_FALSE(store.down(0)[1].defined());
  EXPECT_EQ(store.slots(0).size(), store.down(0).size());
}

TEST(ExpertStore, KeepsSlotsOfTheMappingWhereTheyAre) {
  ExpertStore store(host_and_mapped());
  const ExpertMatrices elsewhere = matrices_elsewhere();
  store.place(0, 1, elsewhere);
  store.freeze();
  store.release(0, std::vector<int32_t>{1});
  EXPECT_EQ(store.down(0)[1].codes.bytes(), elsewhere.down.codes.bytes());
  EXPECT_FALSE(store.down(0)[0].defined());
}

ExpertStore frozen_store(std::vector<std::vector<ExpertSlot>> slots) {
  ExpertStoreConfig config = two_layers();
  config.slots = std::move(slots);
  config.memory = ExpertMemory::kPerExpert;
  ExpertStore store(config);
  store.freeze();
  return store;
}

TEST(ExpertStore, ExchangesTheExpertsThatTheOtherHasAndNoOther) {
  ExpertStore store = frozen_store(two_layers().slots);
  ExpertStore other = frozen_store({{{4, kInt8}, {6, kInt4}}, {}});
  const size_t bytes_of_both = store.num_bytes() + other.num_bytes();
  const auto place_of = [](const ExpertStore& home, size_t slot) { return home.down(0)[slot].codes.bytes(); };
  const std::byte* const first = place_of(store, 0);
  const std::byte* const kept = place_of(store, 1);
  const std::byte* const new_first = place_of(other, 0);
  const std::byte* const new_last = place_of(other, 1);
  store.exchange_layer(0, other);
  EXPECT_EQ(place_of(store, 0), new_first);
  EXPECT_EQ(place_of(store, 1), kept);
  EXPECT_EQ(place_of(store, 2), new_last);
  EXPECT_EQ(place_of(other, 0), first);
  for (const auto& [slot, format] : {std::pair(0, kInt8), std::pair(1, kInt4), std::pair(2, kInt4)}) {
    EXPECT_EQ(store.slots(0)[static_cast<size_t>(slot)].format, format);
    EXPECT_EQ(store.gate_up(0)[static_cast<size_t>(slot)].format, format);
    EXPECT_EQ(store.slots(0)[static_cast<size_t>(slot)].expert, slot + 4);
  }
  EXPECT_EQ(other.slots(0)[0].format, kBF16);
  EXPECT_EQ(store.num_bytes() + other.num_bytes(), bytes_of_both);
}

// The memory of an expert must not live on for its neighbours' sake.
TEST(ExpertStore, TakesMemoryForEachExpertAlone) {
  const size_t before = allocated_host_bytes();
  const ExpertStore store = frozen_store({{{4, kBF16}, {5, kInt4}}, {{4, kInt8}}});
  size_t expected = 0;
  for (const WeightFormat& format : {kBF16, kInt4, kInt8}) expected += stored_expert_bytes(format, 3, 21);
  EXPECT_EQ(allocated_host_bytes() - before, expected);
  EXPECT_EQ(store.num_local_experts(0), 2);
}

TEST(GateUpPanels, JoinsPackedHalvesAsIfPackedTogether) {
  for (const WeightFormat& format : {kBF16, kInt4, kInt8}) {
    Tensor gate = constant({21, 70}, 0.0f);
    Tensor up = constant({21, 70}, 0.0f);
    for (int64_t i = 0; i < 21 * 70; ++i) gate.data<float>()[i] = static_cast<float>(i % 97) - 40.0f;
    for (int64_t i = 0; i < 21 * 70; ++i) up.data<float>()[i] = static_cast<float>(i % 89) - 7.0f;
    PackedMatrix together = empty_packed(format, joined_shape({21, 70}));
    PackedMatrix joined = empty_packed(format, joined_shape({21, 70}));
    pack_gate_up(gate, up, together);
    join_panels(pack(gate, format), pack(up, format), joined);
    EXPECT_TRUE(std::ranges::equal(joined.codes.span<uint8_t>(), together.codes.span<uint8_t>())) << name_of(format);
    EXPECT_TRUE(std::ranges::equal(unpack(joined).span<float>(), unpack(together).span<float>())) << name_of(format);
  }
}

TEST(ExpertStoreDeathTest, RefusesWritesAfterFreezingAndReadsBefore) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ExpertStore store(two_layers());
  EXPECT_DEATH(store.gate_up(0), "before they are loaded");
  store.freeze();
  EXPECT_DEATH(store.matrices(0, 0), "immutable");
  EXPECT_DEATH(store.handle({.layer = 0, .expert = 3}), "not on this rank");
  ExpertStore stranger = frozen_store({{{3, kInt8}}, {}});
  EXPECT_DEATH(store.exchange_layer(0, stranger), "has no expert 3");
}

TEST(ExpertStoreDeathTest, KeepsTiersApartAndAsksForEveryPlace) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ExpertStore store(host_and_mapped());
  EXPECT_DEATH(store.matrices(0, 1), "rests in the mapping");
  EXPECT_DEATH(store.place(0, 0, matrices_elsewhere()), "memory of its own");
  EXPECT_DEATH(store.freeze(), "given no place");
}

}  // namespace
}  // namespace skipper
