#include "kernels/cuda/expert_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/cuda/expert_sums.h"
#include "kernels/elementwise.h"
#include "tests/kernels/cuda/gpu_test.h"

namespace skipper::cuda {
namespace {

Tensor i32(const std::vector<int32_t>& values, const Shape& shape) {
  Tensor tensor = Tensor::empty(shape, DType::kI32);
  CHECK_EQ(static_cast<size_t>(shape.num_elements()), values.size());
  std::ranges::copy(values, tensor.data<int32_t>());
  return tensor;
}
Tensor i32(const std::vector<int32_t>& values) { return i32(values, {static_cast<int64_t>(values.size())}); }

std::vector<int32_t> values_of(const Tensor& tensor) {
  return {tensor.data<int32_t>(), tensor.data<int32_t>() + tensor.num_elements()};
}

Tensor converted(const Tensor& x, DType dtype) {
  Tensor y = Tensor::empty(x.shape(), dtype);
  cpu::convert(x, y);
  return y;
}
// As GpuTest::poisoned() left it.
bool is_poison(const Tensor& rows) {
  return std::all_of(rows.bytes(), rows.bytes() + rows.num_bytes(), [](std::byte byte) { return byte == std::byte{0xff}; });
}
Tensor random_bf16(const Shape& shape, uint32_t seed) { return converted(random_f32(shape, seed), DType::kBF16); }

// --- Rows that arrived, and their experts -------------------------------------------------------------------------------------

struct Arrival {
  int64_t capacity = 0;
  int64_t top_k = 0;
  int64_t num_experts = 0;
  std::vector<int32_t> num_rows;  // by source
  std::vector<int32_t> slot_ids{};  // [S · capacity, k]; rows that did not arrive hold ids all the same

  int64_t num_slots() const { return static_cast<int64_t>(num_rows.size()) * capacity; }
  int64_t rows_from(size_t source) const { return std::min<int64_t>(num_rows[source], capacity); }
  bool has_arrived(int64_t row) const { return row % capacity < rows_from(static_cast<size_t>(row / capacity)); }
  int32_t id(int64_t row, int64_t slot) const { return slot_ids[static_cast<size_t>(row * top_k + slot)]; }
  // Room for the pairs of all slots, as the MoE layer has it.
  int64_t max_sorted_rows() const { return num_slots() * std::min(top_k, num_experts); }
};

// Distinct experts in each row; `share_of_none` of the pairs have none.
Arrival random_arrival(std::vector<int32_t> num_rows, int64_t capacity, int64_t top_k, int64_t num_experts,
                       double share_of_none = 0.2) {
  Arrival arrival{.capacity = capacity, .top_k = top_k, .num_experts = num_experts, .num_rows = std::move(num_rows)};
  std::mt19937 generator(static_cast<uint32_t>(capacity * 31 + num_experts));
  std::vector<int32_t> experts(static_cast<size_t>(std::max(num_experts, top_k)));
  std::iota(experts.begin(), experts.end(), 0);
  for (int64_t row = 0; row < arrival.num_slots(); ++row) {
    for (size_t j = 0; j < static_cast<size_t>(top_k); ++j) {
      std::swap(experts[j], experts[std::uniform_int_distribution<size_t>(j, experts.size() - 1)(generator)]);
      const bool has_none = experts[j] >= num_experts || std::bernoulli_distribution(share_of_none)(generator);
      arrival.slot_ids.push_back(has_none ? -1 : experts[j]);
    }
  }
  return arrival;
}

struct Sorted {
  std::vector<int32_t> row_offsets{}, row_index{}, row_of_pair{};
};

constexpr int32_t kUntouched = -1 - 0x40000000;

// In order of arrival within an expert; −1 in row_of_pair where there is none, kUntouched in rows that did not arrive.
Sorted sorted_by_definition(const Arrival& arrival) {
  Sorted sorted{.row_offsets = {0}, .row_of_pair = std::vector<int32_t>(arrival.slot_ids.size(), kUntouched)};
  for (int32_t expert = -1; expert < arrival.num_experts; ++expert) {
    for (int64_t row = 0; row < arrival.num_slots(); ++row) {
      for (int64_t j = 0; j < arrival.top_k; ++j) {
        if (!arrival.has_arrived(row) || arrival.id(row, j) != expert) continue;
        sorted.row_of_pair[static_cast<size_t>(row * arrival.top_k + j)] =
            expert < 0 ? -1 : static_cast<int32_t>(sorted.row_index.size());
        if (expert >= 0) sorted.row_index.push_back(static_cast<int32_t>(row));
      }
    }
    if (expert >= 0) sorted.row_offsets.push_back(static_cast<int32_t>(sorted.row_index.size()));
  }
  return sorted;
}

// The tensors of one arrival on the GPU.
struct OnGpu {
  Tensor rows, slot_ids, num_rows, row_offsets, row_index, row_of_pair;
  int64_t capacity = 0;

  ArrivedRows arrived() const { return {rows, slot_ids, num_rows, capacity}; }
  SortedExperts sorted() { return {row_offsets, row_index, row_of_pair}; }
};

class ExpertRows : public GpuTest {
 protected:
  Tensor untouched(const Shape& shape) {
    return on_gpu(i32(std::vector<int32_t>(static_cast<size_t>(shape.num_elements()), kUntouched), shape));
  }
  OnGpu upload(const Arrival& arrival, int64_t hidden_size = 8) {
    return {.rows = on_gpu(random_bf16({arrival.num_slots(), hidden_size}, 1)),
            .slot_ids = on_gpu(i32(arrival.slot_ids, {arrival.num_slots(), arrival.top_k})),
            .num_rows = on_gpu(i32(arrival.num_rows)),
            .row_offsets = untouched({arrival.num_experts + 1}),
            .row_index = untouched({arrival.max_sorted_rows()}),
            .row_of_pair = untouched({arrival.num_slots(), arrival.top_k}),
            .capacity = arrival.capacity};
  }
  OnGpu sort(const Arrival& arrival, int64_t hidden_size = 8) {
    OnGpu gpu = upload(arrival, hidden_size);
    sort_by_expert(gpu.arrived(), gpu.sorted(), stream());
    return gpu;
  }
  void expect_sorted(const Arrival& arrival) {
    const OnGpu gpu = sort(arrival);
    const Sorted expected = sorted_by_definition(arrival);
    EXPECT_EQ(values_of(on_host(gpu.row_offsets)), expected.row_offsets);
    EXPECT_EQ(values_of(on_host(gpu.row_of_pair)), expected.row_of_pair);
    std::vector<int32_t> index = values_of(on_host(gpu.row_index));
    index.resize(expected.row_index.size());
    EXPECT_EQ(index, expected.row_index);
  }
  // Rows in sorted order, and the rest of y untouched.
  void expect_gathered(const Arrival& arrival, const OnGpu& gpu, const Tensor& y) {
    const Tensor rows = on_host(gpu.rows), gathered = on_host(y);
    const std::vector<int32_t> index = sorted_by_definition(arrival).row_index;
    for (int64_t r = 0; r < gathered.dim(0); ++r) {
      const auto at = static_cast<size_t>(r);
      const Tensor row = gathered.slice(r, r + 1);
      ASSERT_TRUE(at < index.size() ? same_bytes(row, rows.slice(index[at], index[at] + 1)) : is_poison(row)) << r;
    }
  }
};

TEST_F(ExpertRows, AreSortedByExpertInOrderOfArrival) {
  for (const int32_t num_rows : {1, 2, 7, 128, 509, 2048}) {
    expect_sorted(random_arrival({num_rows}, num_rows, 8, 128));
    expect_sorted(random_arrival({num_rows}, num_rows, 4, 32));
  }
}

TEST_F(ExpertRows, AreSortedOfAnyNumberOfExpertsAndChoices) {
  expect_sorted(random_arrival({37}, 37, 1, 1));
  expect_sorted(random_arrival({101}, 101, 3, 2));
  expect_sorted(random_arrival({101}, 101, 16, 256));
  expect_sorted(random_arrival({16400}, 16400, 8, 5));
  for (const int32_t num_rows : {0, 1, 31, 127, 128, 129}) expect_sorted(random_arrival({num_rows}, 128, 8, 60));
  expect_sorted(random_arrival({1024}, 1024, 1, 3));
}

TEST_F(ExpertRows, AreSortedFromSeveralSources) {
  expect_sorted(random_arrival({3, 0, 64, 17}, 64, 8, 32));
  expect_sorted(random_arrival({501, 1, 500, 0}, 501, 8, 16, 0.7));
  expect_sorted(random_arrival({0, 0, 0, 1}, 2, 4, 3));
  expect_sorted(random_arrival(std::vector<int32_t>(64, 5), 9, 8, 4, 0.9));
}

TEST_F(ExpertRows, BeyondTheCapacityAreLeftOut) { expect_sorted(random_arrival({9, 100, 3}, 8, 4, 8)); }

TEST_F(ExpertRows, AreNoneWhenNoneArrived) { expect_sorted(random_arrival({0, 0}, 16, 8, 128)); }

TEST_F(ExpertRows, AreNoneWhenAllPairsAreSkipped) { expect_sorted(random_arrival({33}, 33, 8, 128, 1.0)); }

TEST_F(ExpertRows, MayAllGoToOneExpert) {
  Arrival arrival = random_arrival({300, 211}, 300, 2, 64, 1.0);
  for (size_t pair = 0; pair < arrival.slot_ids.size(); pair += 2) arrival.slot_ids[pair] = 17;
  expect_sorted(arrival);
}

TEST_F(ExpertRows, AreGatheredInSortedOrder) {
  const Arrival arrival = random_arrival({131, 40}, 131, 8, 32);
  for (const int64_t hidden_size : {8, 96, 256, 2048, 2056}) {
    OnGpu gpu = sort(arrival, hidden_size);
    Tensor y = poisoned({arrival.max_sorted_rows(), hidden_size}, DType::kBF16);
    gather_sorted(gpu.rows, gpu.sorted(), y, stream());
    expect_gathered(arrival, gpu, y);
  }
}

TEST_F(ExpertRows, AreSortedAndGatheredInOneCall) {
  const std::vector<Arrival> arrivals = {random_arrival({1}, 1, 8, 128),       random_arrival({128}, 128, 8, 128),
                                         random_arrival({3, 0, 64}, 64, 8, 5), random_arrival({2049}, 2049, 4, 32),
                                         random_arrival({0}, 4, 4, 3),         random_arrival({50}, 50, 2, 1, 0.0)};
  for (const Arrival& arrival : arrivals) {
    OnGpu gpu = upload(arrival, 2056), apart = sort(arrival);
    Tensor y = poisoned({arrival.max_sorted_rows(), 2056}, DType::kBF16);
    sort_and_gather(gpu.arrived(), gpu.sorted(), y, stream());
    expect_gathered(arrival, gpu, y);
    EXPECT_TRUE(same_bytes(on_host(gpu.row_offsets), on_host(apart.row_offsets)));
    EXPECT_TRUE(same_bytes(on_host(gpu.row_index), on_host(apart.row_index)));
    EXPECT_TRUE(same_bytes(on_host(gpu.row_of_pair), on_host(apart.row_of_pair)));
  }
}

// --- Weighted sums ------------------------------------------------------------------------------------------------------------

class PairSums : public ExpertRows {
 protected:
  struct Types {
    DType y, out;
  };
  // Runs the sums over random rows; NaN weights beside missing pairs.
  void expect_sums(const Arrival& arrival, int64_t hidden_size, const Types& types) {
    OnGpu gpu = sort(arrival);
    const Tensor y = converted(random_f32({arrival.max_sorted_rows(), hidden_size}, 2), types.y);
    Tensor weights = random_f32({arrival.num_slots(), arrival.top_k}, 3);
    for (size_t i = 0; i < arrival.slot_ids.size(); ++i) {
      if (arrival.slot_ids[i] < 0) weights.data<float>()[i] = std::numeric_limits<float>::quiet_NaN();
    }
    Tensor out = poisoned({arrival.num_slots(), hidden_size}, types.out);
    weighted_pair_sums({gpu.arrived(), gpu.row_of_pair, on_gpu(weights), on_gpu(y)}, out, stream());
    const Tensor sums = on_host(out), y_f32 = converted(y, DType::kF32);
    const std::vector<int32_t> row_of_pair = sorted_by_definition(arrival).row_of_pair;
    for (int64_t row = 0; row < arrival.num_slots(); ++row) {
      Tensor expected = Tensor::zeros({1, hidden_size}, DType::kF32);
      for (int64_t j = 0; j < arrival.top_k; ++j) {
        const int32_t sorted_row = row_of_pair[static_cast<size_t>(row * arrival.top_k + j)];
        if (sorted_row < 0) continue;
        for (int64_t i = 0; i < hidden_size; ++i) {
          float& sum = expected.data<float>()[i];
          sum = std::fmaf(weights.row<float>(row)[j], y_f32.row<float>(sorted_row)[i], sum);
        }
      }
      const Tensor actual = sums.slice(row, row + 1);
      ASSERT_TRUE(arrival.has_arrived(row) ? same_bytes(actual, converted(expected, types.out)) : is_poison(actual)) << row;
    }
  }

  // types.out: as what the sums travel.
  void expect_same_bits_in_one_kernel(const Arrival& arrival, int64_t hidden_size, const Types& types) {
    OnGpu gpu = sort(arrival);
    const int64_t num_tokens = arrival.num_slots();
    const Tensor weights = on_gpu(random_f32({num_tokens, arrival.top_k}, 3));
    const Tensor y = on_gpu(converted(random_f32({arrival.max_sorted_rows(), hidden_size}, 2), types.y));
    const ArrivedRows arrived = gpu.arrived();
    const PairTerms terms{arrived, gpu.row_of_pair, weights, y, types.out};
    Tensor travelled = poisoned({num_tokens, hidden_size}, types.out), delta = poisoned({num_tokens, hidden_size}, DType::kF32);
    weighted_pair_sums({arrived, gpu.row_of_pair, weights, y}, travelled, stream());
    std::vector<int32_t> slots(static_cast<size_t>(num_tokens));
    std::iota(slots.begin(), slots.end(), 0);
    add_returned(travelled, on_gpu(i32(slots, {num_tokens, 1})), num_tokens, delta, stream());
    Tensor sums = poisoned(delta.shape(), DType::kF32);
    weighted_pair_sums(terms, sums, stream());
    EXPECT_TRUE(same_bytes(on_host(sums), on_host(delta)));

    const Tensor residual = random_f32(delta.shape(), 4), norm_weight = on_gpu(random_f32({hidden_size}, 5));
    Tensor hidden = on_gpu(residual), hidden_apart = on_gpu(residual);
    NormedRows out{poisoned(delta.shape(), DType::kF32), poisoned(delta.shape(), DType::kBF16)};
    NormedRows apart{poisoned(delta.shape(), DType::kF32), poisoned(delta.shape(), DType::kBF16)};
    add_pair_sums_rms_norm(terms, {norm_weight}, hidden, out, stream());
    add_rms_norm(delta, {norm_weight}, hidden_apart, apart, stream());
    EXPECT_TRUE(same_bytes(on_host(hidden), on_host(hidden_apart))) << hidden_size;
    EXPECT_TRUE(same_bytes(on_host(out.f32), on_host(apart.f32))) << hidden_size;
    EXPECT_TRUE(same_bytes(on_host(out.bf16), on_host(apart.bf16))) << hidden_size;
  }
};

TEST_F(PairSums, AreExactInSlotOrder) {
  for (const DType y : {DType::kF32, DType::kBF16}) {
    for (const DType out : {DType::kF32, DType::kBF16}) {
      expect_sums(random_arrival({29}, 29, 8, 128), 2048, {y, out});
      expect_sums(random_arrival({7, 0, 13, 2}, 13, 4, 8), 256, {y, out});
      expect_sums(random_arrival({5}, 5, 11, 16), 36, {y, out});
      expect_sums(random_arrival({1}, 1, 1, 1, 0.0), 4, {y, out});
    }
  }
}

TEST_F(PairSums, AreZeroForRowsWithoutPairs) {
  expect_sums(random_arrival({17}, 17, 8, 64, 1.0), 256, {DType::kF32, DType::kF32});
}

TEST_F(PairSums, CoverMoreRowsThanBlocksRunAtOnce) {
  expect_sums(random_arrival({2500, 11}, 2500, 2, 16), 64, {DType::kF32, DType::kF32});
}

// How a layer of one rank ends, in the steps of a layer of several, and in one.
TEST_F(PairSums, GetTheSameBitsWithoutTravelAndNormedInOneKernel) {
  for (const int64_t hidden_size : {4, 52, 256, 2048, 4100, 8192}) {
    for (const auto& [num_tokens, top_k] : {std::pair<int32_t, int64_t>{1, 8}, {7, 4}, {61, 11}}) {
      for (const DType y_dtype : {DType::kF32, DType::kBF16}) {
        for (const DType travels_as : {DType::kF32, DType::kBF16}) {
          expect_same_bits_in_one_kernel(random_arrival({num_tokens}, num_tokens, top_k, 32), hidden_size, {y_dtype, travels_as});
        }
      }
    }
  }
}

// --- What goes out ------------------------------------------------------------------------------------------------------------

struct Departure {
  int64_t num_tokens = 0;
  int64_t top_k = 0;
  int32_t num_experts = 0;
  int32_t world_size = 1;
  int64_t capacity = 0;
  std::vector<int32_t> expert_ids{};

  int32_t rank_of(int32_t expert) const { return expert % world_size; }
  int32_t slot_of(int32_t expert) const { return expert / world_size; }
};

Departure random_departure(Departure departure, double share_of_none) {
  const Arrival pairs = random_arrival({static_cast<int32_t>(departure.num_tokens)}, departure.num_tokens, departure.top_k,
                                       departure.num_experts, share_of_none);
  departure.expert_ids = pairs.slot_ids;
  return departure;
}

struct Planned {
  Tensor num_rows, row_slot, token_of_row, slot_ids, weights, overflow;

  OutgoingOutput output() { return {num_rows, row_slot, token_of_row, slot_ids, weights, overflow}; }
};

class OutgoingRows : public ExpertRows {
 protected:
  Tensor weights_of(const Departure& d) { return random_f32({d.num_tokens, d.top_k}, 4); }
  Planned plan(const Departure& d) {
    const int64_t slots = d.world_size * d.capacity;
    Planned planned{.num_rows = untouched({d.world_size}),
                    .row_slot = untouched({d.num_tokens, d.world_size}),
                    .token_of_row = untouched({slots}),
                    .slot_ids = untouched({slots, d.top_k}),
                    .weights = poisoned({slots, d.top_k}, DType::kF32),
                    .overflow = on_gpu(i32({0}))};
    std::vector<int32_t> ranks, local;
    for (int32_t e = 0; e < d.num_experts; ++e) {
      ranks.push_back(d.rank_of(e));
      local.push_back(d.slot_of(e));
    }
    const Tensor ids = on_gpu(i32(d.expert_ids, {d.num_tokens, d.top_k})), weights = on_gpu(weights_of(d));
    const Tensor rank_of_expert = on_gpu(i32(ranks)), slot_of_expert = on_gpu(i32(local));
    plan_outgoing({ids, weights, rank_of_expert, slot_of_expert, d.world_size, d.capacity}, planned.output(), stream());
    return planned;
  }

  // Token by token in their order, the rows of each rank.
  void expect_planned(const Departure& d) {
    const Planned planned = plan(d);
    const Tensor weights = weights_of(d), sent_weights = on_host(planned.weights), sent_ids = on_host(planned.slot_ids);
    const std::vector<int32_t> tokens = values_of(on_host(planned.token_of_row));
    std::vector<int32_t> num_rows(static_cast<size_t>(d.world_size)), row_slot;
    for (int64_t t = 0; t < d.num_tokens; ++t) {
      for (int32_t rank = 0; rank < d.world_size; ++rank) {
        const auto is_there = [&](int32_t id) { return id >= 0 && d.rank_of(id) == rank; };
        const int32_t* ids = d.expert_ids.data() + t * d.top_k;
        int32_t& count = num_rows[static_cast<size_t>(rank)];
        const bool goes = std::any_of(ids, ids + d.top_k, is_there), has_room = goes && count < d.capacity;
        row_slot.push_back(has_room ? count : -1);
        if (has_room) {
          const int64_t row = rank * d.capacity + count;
          ASSERT_EQ(tokens[static_cast<size_t>(row)], t);
          for (int64_t j = 0; j < d.top_k; ++j) {
            ASSERT_EQ(sent_ids.row<int32_t>(row)[j], is_there(ids[j]) ? d.slot_of(ids[j]) : -1) << row << ", " << j;
            ASSERT_EQ(sent_weights.row<float>(row)[j], is_there(ids[j]) ? weights.row<float>(t)[j] : 0.0f) << row << ", " << j;
          }
        }
        count += goes ? 1 : 0;
      }
    }
    EXPECT_EQ(values_of(on_host(planned.num_rows)), num_rows);
    EXPECT_EQ(values_of(on_host(planned.row_slot)), row_slot);
    const bool overflows = std::ranges::any_of(num_rows, [&](int32_t count) { return count > d.capacity; });
    EXPECT_EQ(values_of(on_host(planned.overflow))[0], overflows ? 1 : 0);
  }
};

TEST_F(OutgoingRows, ArePlannedInTokenOrder) {
  const std::vector<Departure> departures = {
      {.num_tokens = 1, .top_k = 8, .num_experts = 128, .world_size = 8, .capacity = 1},
      {.num_tokens = 61, .top_k = 4, .num_experts = 32, .world_size = 4, .capacity = 61},
      {.num_tokens = 129, .top_k = 8, .num_experts = 128, .world_size = 64, .capacity = 200},
      {.num_tokens = 1500, .top_k = 8, .num_experts = 128, .world_size = 3, .capacity = 1500}};
  for (const double share_of_none : {0.0, 0.3, 0.9, 1.0}) {
    for (const Departure& departure : departures) expect_planned(random_departure(departure, share_of_none));
  }
}

TEST_F(OutgoingRows, OverflowIsMarkedAndCounted) {
  expect_planned(random_departure({.num_tokens = 100, .top_k = 4, .num_experts = 32, .world_size = 2, .capacity = 64}, 0.1));
}

TEST_F(OutgoingRows, AreNoneWithoutTokens) {
  expect_planned({.num_tokens = 0, .top_k = 4, .num_experts = 32, .world_size = 4, .capacity = 16});
}

TEST_F(OutgoingRows, ArePackedByRank) {
  const Departure d = random_departure({.num_tokens = 90, .top_k = 4, .num_experts = 32, .world_size = 4, .capacity = 70}, 0.4);
  Planned planned = plan(d);
  const Tensor x = random_bf16({d.num_tokens, 264}, 5);
  Tensor send = poisoned({d.world_size * d.capacity, 264}, DType::kBF16);
  pack_outgoing(on_gpu(x), planned.output(), d.capacity, send, stream());
  const Tensor sent = on_host(send), tokens = on_host(planned.token_of_row), counts = on_host(planned.num_rows);
  for (int64_t row = 0; row < sent.dim(0); ++row) {
    if (row % d.capacity < counts.data<int32_t>()[row / d.capacity]) {
      const int64_t token = tokens.data<int32_t>()[row];
      ASSERT_TRUE(same_bytes(sent.slice(row, row + 1), x.slice(token, token + 1))) << row;
    } else {
      ASSERT_TRUE(is_poison(sent.slice(row, row + 1))) << row;
    }
  }
}

TEST_F(OutgoingRows, AreAddedInRankOrderWhenTheyReturn) {
  for (const int32_t world_size : {1, 3, 8, 19}) {
    const Departure d = random_departure(
        {.num_tokens = 77, .top_k = 8, .num_experts = 64, .world_size = world_size, .capacity = 77}, 0.6);
    const Planned planned = plan(d);
    const Tensor row_slot = on_host(planned.row_slot);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor returned = converted(random_f32({world_size * d.capacity, 516}, 6), dtype);
      Tensor out = poisoned({d.num_tokens, 516}, DType::kF32);
      add_returned(on_gpu(returned), planned.row_slot, d.capacity, out, stream());
      const Tensor sums = on_host(out), values = converted(returned, DType::kF32);
      for (int64_t t = 0; t < d.num_tokens; ++t) {
        for (int64_t i = 0; i < 516; ++i) {
          float expected = 0.0f;
          for (int32_t rank = 0; rank < world_size; ++rank) {
            const int32_t slot = row_slot.row<int32_t>(t)[rank];
            if (slot >= 0) expected += values.row<float>(rank * d.capacity + slot)[i];
          }
          ASSERT_EQ(sums.row<float>(t)[i], expected) << t << ", " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace skipper::cuda
