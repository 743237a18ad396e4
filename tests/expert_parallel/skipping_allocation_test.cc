// Deciding must cost next to nothing: no memory is allocated for it, and nothing is decided where nothing may be skipped.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <vector>

#include "cluster/cluster_topology.h"
#include "expert_parallel/expert_skipping.h"
#include "tests/expert_parallel/frozen_routing.h"
#include "tests/support/spawn_ranks.h"

namespace {

thread_local int64_t num_allocations = 0;

void* counted_allocation(std::size_t num_bytes) {
  ++num_allocations;
  if (void* memory = std::malloc(num_bytes)) return memory;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t num_bytes) { return counted_allocation(num_bytes); }
void* operator new[](std::size_t num_bytes) { return counted_allocation(num_bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace skipper {
namespace {

constexpr int64_t kTokens = 64;

// But for rank_capacity: messages of its sums are the communicator's.
LevelTable many_rules() {
  const auto destinations = [](OperatingPoint& p) { p.tau_dst = {std::array{0.0f, 0.1f, 0.1f}, std::array{0.0f, 0.1f, 0.1f}}; };
  return table({point_with([](OperatingPoint&) {}), point_with([&](OperatingPoint& p) {
                  p.tau = {0.1f, 0.2f};
                  p.exempt_local = true;
                  p.renormalize = true;
                  destinations(p);
                }),
                point_with([](OperatingPoint& p) {
                  p.pair_rule = PairRule::kTailMass;
                  p.beta = {std::vector<float>(kNumLayers, 0.3f), std::vector<float>(kNumLayers, 0.3f)};
                }),
                point_with([](OperatingPoint& p) {
                  p.decode_base_k = 2;
                  p.decode_rank_experts = 3;
                })});
}

// How often memory is allocated by a batch of this size, after one of full size went before it.
int64_t allocations_of(const Frozen& first, const Frozen& second) {
  const LevelTable levels = many_rules();
  const auto placement =
      ExpertPlacement::contiguous({.num_moe_layers = kNumLayers, .num_experts = kNumExperts, .world_size = 1});
  const ClusterTopology topology(std::vector<int>{0});
  int64_t counted = 0;
  spawn_ranks(1, [&](Communicator& data) {
    const ExpertSkipping skipping({levels, placement, topology, data}, {.layer = kLayer, .moe_layer = kLayer});
    SkippingBuffers buffers(kTokens, kTopK);
    TrafficCounters counters;
    Stream stream;
    skipping.apply(first.routing, first.policies, buffers, counters, stream);
    const int64_t before = num_allocations;
    skipping.apply(second.routing, second.policies, buffers, counters, stream);
    counted = num_allocations - before;
  });
  return counted;
}

Frozen generated(uint32_t num_levels, uint32_t seed) {
  Frozen frozen = random_routing(kTokens, num_levels, seed);
  frozen.set_phase(TokenPhase::kGenerated);
  return frozen;
}

TEST(SkippingAllocations, AreNoneAfterABatchOfFullSizeOfMixedLevels) {
  const Frozen first = generated(4, 61);
  EXPECT_EQ(allocations_of(first, generated(4, 62)), 0);
  EXPECT_EQ(allocations_of(first, generated(4, 63).subset({0, 5, 9})), 0);
  EXPECT_EQ(allocations_of(first, random_routing(kTokens, 4, 64)), 0);
}

TEST(SkippingAllocations, AreNoneWhereNothingMayBeSkipped) { EXPECT_EQ(allocations_of(generated(1, 65), generated(1, 66)), 0); }

TEST(SkippingAllocations, AreCountedByThisTest) {
  const int64_t before = num_allocations;
  EXPECT_EQ(std::vector<int>(10, 3).size(), 10u);
  EXPECT_GT(num_allocations, before);
}

}  // namespace
}  // namespace skipper
