#include "residency/disk_residence.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "base/error.h"
#include "tests/residency/made_experts.h"

namespace skipper {
namespace {

// Two layers of eight experts each, all on disk.
constexpr int kPerLayer = 8;

// Names the experts that a test put there.
class ScriptedPredictor final : public ExpertPredictor {
 public:
  explicit ScriptedPredictor(std::vector<int32_t> experts) : experts_(std::move(experts)) {}
  void observe(int, std::span<const int32_t>) override {}
  std::vector<int32_t> predict(int, const Tensor&, size_t count, Stream&) override {
    return {experts_.begin(), experts_.begin() + static_cast<ptrdiff_t>(std::min(count, experts_.size()))};
  }

 private:
  std::vector<int32_t> experts_;
};

class DiskResidenceTest : public ::testing::Test {
 protected:
  ~DiskResidenceTest() override { std::filesystem::remove(path_); }

  ExpertCacheConfig config(int num_frames, ReadMethod reads = ReadMethod::kIoUring) const {
    return {.file = path_,
            .content = made_.content(),
            .shape = kMadeShape,
            .counts = {.num_layers = 2, .num_experts = kPerLayer},
            .num_frames = num_frames,
            .rules = {.eviction = EvictionRule::kLeastRecent, .reads = reads}};
  }

  static std::vector<std::vector<int32_t>> slots() {
    std::vector<int32_t> all(kPerLayer);
    for (int32_t e = 0; e < kPerLayer; ++e) all[static_cast<size_t>(e)] = e;
    return {all, all};
  }

  // Takes all experts of a layer, and checks that their bytes are those that were written.
  void run_layer(DiskResidence& residence, int layer, const std::vector<int32_t>& needed) {
    residence.begin({layer, needed, needed, tokens_}, stream_);
    std::set<int32_t> given;
    for (auto experts = residence.next(); !experts.empty(); experts = residence.next()) {
      for (const ResidentExpert& one : experts) {
        EXPECT_TRUE(given.insert(one.slot).second) << "slot " << one.slot << " came twice";
        const auto index = static_cast<size_t>(2 * one.slot + layer);
        EXPECT_EQ(made_hash(one.matrices), made_.content().records[index].hash) << "layer " << layer << ", slot " << one.slot;
      }
      residence.release();
    }
    EXPECT_EQ(given, std::set<int32_t>(needed.begin(), needed.end()));
  }

  const std::filesystem::path path_ =
      std::filesystem::current_path() / ("disk_residence_test_" + std::to_string(::getpid()));
  const MadeExperts made_{path_, 2 * kPerLayer};
  const Tensor tokens_ = Tensor::zeros({1, kMadeShape.hidden_size}, DType::kF32);
  Stream stream_;
};

TEST_F(DiskResidenceTest, GivesAllThatALayerNeedsThroughFewFrames) {
  for (const ReadMethod reads : {ReadMethod::kIoUring, ReadMethod::kBlocking}) {
    for (const int frames : {1, 2, 3, 7, 16}) {
      DiskResidence residence(config(frames, reads), slots(), nullptr);
      run_layer(residence, 0, {0, 1, 2, 3, 4, 5, 6, 7});
      run_layer(residence, 1, {1, 3, 6});
      run_layer(residence, 0, {});
      run_layer(residence, 0, {5});
      EXPECT_EQ(residence.counters().num_needs(), 12);
      EXPECT_GE(residence.counters().num_misses + residence.counters().num_used, 11) << "what is needed is read";
    }
  }
}

TEST_F(DiskResidenceTest, ReadsNothingTwiceThatFits) {
  DiskResidence residence(config(16), slots(), nullptr);
  for (int round = 0; round < 3; ++round) {
    run_layer(residence, 0, {0, 2, 4});
    run_layer(residence, 1, {1, 7});
  }
  const CacheCounters counters = residence.counters();
  EXPECT_EQ(counters.num_misses, 5);
  EXPECT_EQ(counters.num_hits, 10);
  int64_t expected = 0;
  for (const size_t index : {0, 4, 8, 3, 15}) expected += static_cast<int64_t>(made_.content().records[index].num_bytes);
  EXPECT_EQ(counters.num_bytes, expected);
  EXPECT_GT(counters.exposed_seconds, 0.0);
}

TEST_F(DiskResidenceTest, CountsWhatWasForeseenRightAndWrong) {
  DiskResidence residence(config(8), slots(), std::make_unique<ScriptedPredictor>(std::vector<int32_t>{2, 3}),
                          ForesightUse::kAlways);
  run_layer(residence, 0, {0, 1});  // foresees 2 and 3 of layer 1
  run_layer(residence, 1, {2, 5});
  CacheCounters counters = residence.counters();
  EXPECT_EQ(counters.num_foreseen, 2);
  EXPECT_EQ(counters.num_misses, 3);  // 0 and 1 of layer 0, 5 of layer 1
  EXPECT_EQ(counters.num_hits + counters.num_late, 1);
  EXPECT_EQ(counters.num_used, 1);
  // 3 was given up while it was read, or goes when its frame is needed.
  run_layer(residence, 0, {0, 1, 2, 3, 4, 5, 6, 7});
  counters = residence.counters();
  EXPECT_EQ(counters.num_wasted, 1 + 0);
  EXPECT_EQ(counters.num_used, 1);
}

TEST_F(DiskResidenceTest, ReadsTheNextLayerOfAPromptWhileOneComputes) {
  const std::vector<int32_t> all = {0, 1, 2, 3, 4, 5, 6, 7};
  const auto count_of_next = [](const DiskResidence& residence) {
    int count = 0;
    for (int32_t expert = 0; expert < kPerLayer; ++expert) count += residence.cache().holds_or_reads({1, expert}) ? 1 : 0;
    return count;
  };
  DiskResidence two_layers(config(2 * kPerLayer), slots(), nullptr);
  two_layers.begin({0, all, all, tokens_}, stream_);
  EXPECT_EQ(count_of_next(two_layers), kPerLayer) << "before the first expert has computed";
  while (!two_layers.next().empty()) two_layers.release();
  run_layer(two_layers, 1, all);
  EXPECT_EQ(two_layers.counters().num_misses, kPerLayer);
  EXPECT_EQ(two_layers.counters().num_used, kPerLayer);

  // With room for one layer the next comes in where experts have computed; every frame is read into once more.
  DiskResidence one_layer(config(kPerLayer), slots(), nullptr);
  one_layer.begin({0, all, all, tokens_}, stream_);
  EXPECT_EQ(count_of_next(one_layer), 0);
  while (!one_layer.next().empty()) one_layer.release();
  EXPECT_GE(count_of_next(one_layer), kPerLayer / 2);
  run_layer(one_layer, 1, all);
  EXPECT_GE(one_layer.counters().num_used, kPerLayer / 2);
  EXPECT_EQ(one_layer.counters().num_wasted, 0);

  DiskResidence of_few(config(2 * kPerLayer), slots(), nullptr);
  of_few.begin({0, std::vector<int32_t>{0, 1, 2}, std::vector<int32_t>{0, 1, 2}, tokens_}, stream_);
  EXPECT_EQ(count_of_next(of_few), 0) << "three experts of eight say nothing of the next layer";
  while (!of_few.next().empty()) of_few.release();
}

TEST_F(DiskResidenceTest, KeepsToPartsThatMeasurementsPut) {
  // Gives up the highest expert of the highest layer.
  class HighestFirst final : public EvictionPolicy {
   public:
    void note_use(const ExpertId&) override {}
    size_t choose(std::span<const ExpertId> candidates, int) const override {
      const auto place = [](const ExpertId& id) { return std::pair(id.layer, id.expert); };
      return static_cast<size_t>(std::ranges::max_element(candidates, {}, place) - candidates.begin());
    }
  };
  ExpertCacheConfig with_parts = config(3);
  with_parts.parts.make_eviction = [] { return std::make_unique<HighestFirst>(); };
  DiskResidence residence(with_parts, slots(), nullptr);
  run_layer(residence, 0, {0, 5, 6});
  run_layer(residence, 0, {1});
  EXPECT_TRUE(residence.cache().holds_or_reads({0, 5}));
  EXPECT_FALSE(residence.cache().holds_or_reads({0, 6})) << "the least recent rule would have given up 0";
}

TEST_F(DiskResidenceTest, TellsWhatRestsInMemoryFromWhatRestsOnDisk) {
  DiskResidence residence(config(8), slots(), std::make_unique<ScriptedPredictor>(std::vector<int32_t>{}));
  const std::vector<int32_t> on_disk = {1, 4}, used = {0, 1, 4, 6, 7};
  residence.begin({0, on_disk, used, tokens_}, stream_);
  while (!residence.next().empty()) residence.release();
  const DiskReading reading = residence.reading();
  EXPECT_EQ(reading.num_in_memory, 3);
  EXPECT_EQ(reading.cache.num_misses, 2);
  EXPECT_EQ(reading.num_frames, 8);
  EXPECT_TRUE(reading.foresight.has_rule);
  EXPECT_FALSE(reading.foresight.is_on) << "waits without it are measured first";
  EXPECT_FALSE(DiskResidence(config(8), slots(), nullptr).reading().foresight.has_rule);
}

TEST_F(DiskResidenceTest, GivesTheSameBytesWhateverIsForeseen) {
  std::mt19937 generator(3);
  for (const ReadMethod reads : {ReadMethod::kIoUring, ReadMethod::kBlocking}) {
    DiskResidence residence(config(5, reads), slots(), std::make_unique<ScriptedPredictor>(std::vector<int32_t>{7, 0, 5}),
                            ForesightUse::kAlways);
    for (int step = 0; step < 300; ++step) {
      std::vector<int32_t> needed;
      for (int32_t slot = 0; slot < kPerLayer; ++slot) {
        if (generator() % 3 == 0) needed.push_back(slot);
      }
      run_layer(residence, step % 2, needed);
    }
    EXPECT_GT(residence.counters().num_foreseen, 0);
    EXPECT_LE(residence.counters().num_wasted, residence.counters().num_foreseen);
  }
}

TEST_F(DiskResidenceTest, SaysWhichFileEndsWhileItServes) {
  DiskResidence residence(config(4), slots(), nullptr);
  run_layer(residence, 0, {0});
  std::filesystem::resize_file(path_, 4096);
  const std::vector<int32_t> needed = {3};
  residence.begin({1, needed, needed, tokens_}, stream_);
  EXPECT_THROW(residence.next(), InvalidFile);
}

TEST(GatePredictor, NamesWhatTheRouterWouldChoose) {
  // Expert e answers to the input e; the token holds inputs 2 and 0.
  constexpr ExpertCounts kCounts{.num_layers = 2, .num_experts = 4};
  Tensor gate = Tensor::zeros({4, 4}, DType::kF32);
  for (int64_t e = 0; e < 4; ++e) gate.row<float>(e)[e] = 1.0f;
  const PackedMatrix packed = pack(gate, parse_weight_format("f32", "test"));
  const auto predictor = make_expert_predictor(ForesightRule::kGate, kCounts, {.gates = {packed, packed}, .top_k = 2});
  Tensor tokens = Tensor::zeros({1, 4}, DType::kF32);
  tokens.data<float>()[2] = 5.0f;
  tokens.data<float>()[0] = 3.0f;
  Stream stream;
  EXPECT_EQ(predictor->predict(1, tokens, 2, stream), (std::vector<int32_t>{2, 0}));
  EXPECT_EQ(predictor->predict(1, tokens, 1, stream), std::vector<int32_t>{2});
  EXPECT_TRUE(predictor->predict(1, tokens.first(0), 2, stream).empty());
}

void observe_window(ForesightSwitch& foresight, double seconds_per_need) {
  for (int64_t i = 0; i < ForesightSwitch::kWindowLayers; ++i) foresight.observe(2, 2 * seconds_per_need);
}

TEST(ForesightSwitch, StaysOffWhereWaitsDoNotFall) {
  ForesightSwitch foresight;
  EXPECT_FALSE(foresight.is_on());
  observe_window(foresight, 0.010);
  EXPECT_TRUE(foresight.is_on()) << "it is tried";
  observe_window(foresight, 0.010);
  EXPECT_FALSE(foresight.is_on());
  EXPECT_EQ(foresight.num_times_off(), 1);
  EXPECT_NEAR(foresight.waited_with(), 0.010, 1e-9);
}

TEST(ForesightSwitch, StaysOnWhereWaitsFallAndLooksAgain) {
  ForesightSwitch foresight;
  observe_window(foresight, 0.010);
  observe_window(foresight, 0.004);
  for (int64_t i = 1; i < ForesightSwitch::kStandingWindows; ++i) {
    EXPECT_TRUE(foresight.is_on());
    observe_window(foresight, 0.004);
  }
  observe_window(foresight, 0.004);
  EXPECT_FALSE(foresight.is_on()) << "waits without foresight are measured again";
  EXPECT_EQ(foresight.num_times_off(), 0);
}

}  // namespace
}  // namespace skipper
