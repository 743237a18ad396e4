#include "experts/expert_ffn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/support/moe_reference.h"

namespace skipper {
namespace {

// Expert e in format e, modulo the number of formats.
ExpertStore store_of(const MoeWeights& weights, const std::vector<WeightFormat>& formats = {{}}) {
  const int64_t width = weights.shape.intermediate_size;
  ExpertStoreConfig config{.hidden_size = weights.shape.hidden_size,
                           .intermediate_size = width,
                           .slots = {{}},
                           .bf16_activations = ActivationFormat::kF32};
  for (int32_t e = 0; e < weights.shape.num_experts; ++e) {
    config.slots[0].push_back({e, formats[static_cast<size_t>(e) % formats.size()]});
  }
  ExpertStore store(config);
  for (int e = 0; e < weights.shape.num_experts; ++e) {
    ExpertMatrices target = store.matrices(0, e);
    pack_gate_up(weights.gate_up.at(e).slice(0, width), weights.gate_up.at(e).slice(width, 2 * width), target.gate_up);
    pack_into(weights.down.at(e), target.down);
  }
  store.freeze();
  return store;
}

// rows_per_expert rows, each of a random token.
ExpertBatch random_rows(int64_t num_tokens, int64_t hidden_size, const std::vector<int32_t>& rows_per_expert) {
  std::mt19937 generator(7);
  ExpertBatch batch;
  batch.tokens = Tensor::empty({num_tokens, hidden_size}, DType::kF32);
  for (float& value : batch.tokens.span<float>()) value = std::normal_distribution<float>()(generator);
  batch.row_offsets = Tensor::zeros({static_cast<int64_t>(rows_per_expert.size()) + 1}, DType::kI32);
  for (size_t e = 0; e < rows_per_expert.size(); ++e) {
    batch.row_offsets.data<int32_t>()[e + 1] = batch.row_offsets.data<int32_t>()[e] + rows_per_expert[e];
  }
  batch.row_index = Tensor::empty({batch.row_offsets.span<int32_t>().back()}, DType::kI32);
  for (int32_t& token : batch.row_index.span<int32_t>()) {
    token = static_cast<int32_t>(generator() % static_cast<uint32_t>(num_tokens));
  }
  return batch;
}

Tensor forward(const ExpertStore& store, const ExpertBatch& batch, int64_t max_rows_per_pass, int num_threads = 1,
               ExpertResidence* residence = nullptr) {
  ExpertScratch scratch(store, max_rows_per_pass);
  Tensor out = Tensor::empty({batch.row_index.num_elements(), store.hidden_size()}, DType::kF32);
  ThreadPool workers(num_threads);
  Stream stream(workers);
  ExpertFfn experts(store);
  experts.set_residence(residence);
  experts.forward(0, batch, scratch, out, stream);
  return out;
}

TEST(ExpertFfn, ComputesEachRowWithItsExpert) {
  const MoeWeights weights = random_moe_weights({.hidden_size = 37, .intermediate_size = 11, .num_experts = 5}, 1);
  const ExpertStore store = store_of(weights);
  const ExpertBatch batch = random_rows(9, 37, {3, 0, 1, 17, 2});
  const Tensor out = forward(store, batch, 64);
  const int32_t* offsets = batch.row_offsets.data<int32_t>();
  for (int32_t e = 0; e < 5; ++e) {
    for (int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
      const Tensor x = batch.tokens.at(batch.row_index.data<int32_t>()[r]);
      const auto expected = reference_expert(weights, e, x.span<float>());
      for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(out.row<float>(r)[i], expected[i], 1e-4);
    }
  }
}

TEST(ExpertFfn, GivesTheSameBitsForAnySizeOfPass) {
  const MoeWeights weights = random_moe_weights({.hidden_size = 16, .intermediate_size = 8, .num_experts = 4}, 2);
  const ExpertStore store = store_of(weights);
  const ExpertBatch batch = random_rows(9, 16, {5, 13, 0, 5});
  const Tensor whole = forward(store, batch, 23);
  for (const int64_t rows : {1, 2, 7, 22, 1000}) {
    EXPECT_TRUE(std::ranges::equal(forward(store, batch, rows).span<float>(), whole.span<float>())) << rows;
  }
}

std::vector<WeightFormat> all_formats() {
  std::vector<WeightFormat> formats;
  for (const char* name : {"f32", "bf16", "int8-g32", "int4-g32", "int4a-g64", "int3a-g32", "int2a-g128"}) {
    formats.push_back(parse_weight_format(name, "format"));
  }
  return formats;
}

double norm(std::span<const double> values) {
  double sum = 0.0;
  for (const double value : values) sum += value * value;
  return std::sqrt(sum);
}

TEST(ExpertFfn, KeepsExpertsOfAllFormatsInOneLayer) {
  // Largest distance from the exact result as a share of its length; a wrong scale, group or panel is far beyond.
  const std::vector<double> bounds = {1e-5, 1e-5, 0.02, 0.25, 0.25, 0.5, 0.9};
  const MoeWeights weights = random_moe_weights({.hidden_size = 161, .intermediate_size = 67, .num_experts = 7}, 5);
  const ExpertStore store = store_of(weights, all_formats());
  const ExpertBatch batch = random_rows(5, 161, {3, 2, 1, 4, 2, 5, 3});
  const Tensor out = forward(store, batch, 64);
  const int32_t* offsets = batch.row_offsets.data<int32_t>();
  for (int32_t e = 0; e < 7; ++e) {
    for (int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
      const Tensor x = batch.tokens.at(batch.row_index.data<int32_t>()[r]);
      std::vector<double> expected = reference_expert(weights, e, x.span<float>());
      std::vector<double> error = expected;
      for (size_t i = 0; i < error.size(); ++i) error[i] -= double{out.row<float>(r)[i]};
      EXPECT_LE(norm(error), bounds[static_cast<size_t>(e)] * norm(expected)) << name_of(store.handle({0, e}).format);
    }
  }
}

TEST(ExpertFfn, GivesTheSameBitsForAnyNumberOfThreadsInAllFormats) {
  const MoeWeights weights = random_moe_weights({.hidden_size = 70, .intermediate_size = 50, .num_experts = 7}, 6);
  const ExpertStore store = store_of(weights, all_formats());
  const ExpertBatch batch = random_rows(40, 70, {3, 40, 1, 17, 2, 9, 30});
  const Tensor alone = forward(store, batch, 1000);
  for (const int num_threads : {2, 3, 5}) {
    for (const int64_t rows : {11, 1000}) {
      EXPECT_TRUE(std::ranges::equal(forward(store, batch, rows, num_threads).span<float>(), alone.span<float>()))
          << num_threads << " threads, " << rows << " rows per pass";
    }
  }
}

// The same experts, those of the bits of `on_disk` without memory.
ExpertStore store_with_disk(const MoeWeights& weights, const ExpertStore& whole, uint32_t on_disk) {
  ExpertStoreConfig config{.hidden_size = weights.shape.hidden_size,
                           .intermediate_size = weights.shape.intermediate_size,
                           .slots = {{}},
                           .bf16_activations = ActivationFormat::kF32};
  for (ExpertSlot slot : whole.slots(0)) {
    if ((on_disk >> slot.expert & 1u) != 0) slot.tier = ExpertTier::kDisk;
    config.slots[0].push_back(slot);
  }
  ExpertStore store(config);
  for (int e = 0; e < weights.shape.num_experts; ++e) {
    if (config.slots[0][static_cast<size_t>(e)].tier == ExpertTier::kDisk) continue;
    ExpertMatrices target = store.matrices(0, e);
    const int64_t width = weights.shape.intermediate_size;
    pack_gate_up(weights.gate_up.at(e).slice(0, width), weights.gate_up.at(e).slice(width, 2 * width), target.gate_up);
    pack_into(weights.down.at(e), target.down);
  }
  store.freeze();
  return store;
}

// Gives the experts of another store, `at_once` at a time, last slots first.
class LentExperts final : public ExpertResidence {
 public:
  LentExperts(const ExpertStore& store, size_t at_once) : store_(store), at_once_(at_once) {}

  void begin(const LayerDemand& demand, Stream&) override {
    layer_ = demand.layer;
    wanted_.assign(demand.on_disk.begin(), demand.on_disk.end());
  }
  std::span<const ResidentExpert> next() override {
    given_.clear();
    for (size_t i = 0; i < at_once_ && !wanted_.empty(); ++i) {
      const auto slot = static_cast<size_t>(wanted_.back());
      given_.push_back({wanted_.back(), {store_.gate_up(layer_)[slot], store_.down(layer_)[slot]}});
      wanted_.pop_back();
    }
    std::ranges::sort(given_, {}, &ResidentExpert::slot);
    return given_;
  }
  void release() override {}

 private:
  const ExpertStore& store_;
  size_t at_once_;
  int layer_ = 0;
  std::vector<int32_t> wanted_;
  std::vector<ResidentExpert> given_;
};

TEST(ExpertFfn, GivesTheSameBitsForExpertsThatComeOneByOne) {
  const MoeWeights weights = random_moe_weights({.hidden_size = 70, .intermediate_size = 50, .num_experts = 7}, 6);
  const ExpertStore whole = store_of(weights, all_formats());
  const ExpertBatch batch = random_rows(40, 70, {3, 0, 1, 17, 2, 0, 30});
  const Tensor expected = forward(whole, batch, 1000);
  for (const uint32_t on_disk : {0b1111111u, 0b0000001u, 0b1000000u, 0b0101010u, 0b0011100u, 0b0100010u}) {
    ExpertStore store = store_with_disk(weights, whole, on_disk);
    for (const size_t at_once : {1u, 2u, 7u}) {
      for (const int64_t rows : {11, 1000}) {
        LentExperts lent(whole, at_once);
        EXPECT_TRUE(std::ranges::equal(forward(store, batch, rows, 2, &lent).span<float>(), expected.span<float>()))
            << "on disk " << on_disk << ", " << at_once << " at once, " << rows << " rows per pass";
      }
    }
  }
}

TEST(ExpertFfn, SaturatesFarFromZero) {
  // One input x, gate = 100 · x, up = x, down = 1: x · silu(100 · x), which is 0 or 100 · x² up to rounding.
  MoeWeights weights = random_moe_weights({.hidden_size = 1, .intermediate_size = 1, .num_experts = 1}, 4);
  weights.gate_up.data<bf16>()[0] = bf16(100.0f);
  weights.gate_up.data<bf16>()[1] = weights.down.data<bf16>()[0] = bf16(1.0f);
  ExpertBatch batch = random_rows(3, 1, {3});
  for (int i = 0; i < 3; ++i) {
    batch.tokens.data<float>()[i] = static_cast<float>(2 * i - 2);
    batch.row_index.data<int32_t>()[i] = i;
  }
  const Tensor out = forward(store_of(weights), batch, 3);
  EXPECT_EQ(out.data<float>()[0], 0.0f);
  EXPECT_EQ(out.data<float>()[1], 0.0f);
  EXPECT_EQ(out.data<float>()[2], 400.0f);
}

TEST(ExpertFfn, TakesNoRows) {
  const MoeWeights weights = random_moe_weights({.num_experts = 3}, 3);
  EXPECT_EQ(forward(store_of(weights), random_rows(1, 16, {0, 0, 0}), 4).dim(0), 0);
}

TEST(ExpertFfn, TakesNoExperts) {
  ExpertStore store({.hidden_size = 4, .intermediate_size = 2, .slots = {{}}});
  store.freeze();
  EXPECT_EQ(forward(store, random_rows(1, 4, {}), 4).dim(0), 0);
}

}  // namespace
}  // namespace skipper
