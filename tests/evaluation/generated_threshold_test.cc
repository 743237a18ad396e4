// The walk to a threshold of generated tokens, over random surfaces.
#include "evaluation/generated_threshold.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace skipper {
namespace {

// Remembers what was asked for.
class RandomSurface {
 public:
  explicit RandomSurface(uint32_t seed) : random_(seed) {}

  PointValue at(const PhaseIndex& index) {
    EXPECT_TRUE(values_.find(index) == values_.end()) << "asked for twice";
    std::uniform_real_distribution<double> value(0.0, 1.0);
    return values_[index] = {value(random_), value(random_)};
  }
  const std::map<PhaseIndex, PointValue>& values() const { return values_; }

 private:
  std::mt19937 random_;
  std::map<PhaseIndex, PointValue> values_;
};

TEST(GeneratedThreshold, IsNeverWorseWithinItsPassesOnAnySurface) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    const GridSize size{1 + static_cast<int>(seed % 7), 1 + static_cast<int>(seed % 5)};
    const GridIndex start{static_cast<int>(seed) % size.text, static_cast<int>(seed) % size.vision};
    const int most = static_cast<int>(seed % 11);
    RandomSurface surface(seed);
    const PointValue before{0.5, 0.5};
    const PhaseIndex found = walk_generated_threshold(start, before, {size, 0.4, most},
                                                      [&](const PhaseIndex& index) { return surface.at(index); });
    EXPECT_LE(surface.values().size(), static_cast<size_t>(most));
    for (const auto& [index, value] : surface.values()) {
      EXPECT_TRUE(index.generated >= 0 && index.prompt.text < size.text && index.prompt.vision < size.vision);
    }
    if (found == PhaseIndex{start, start.text}) continue;
    EXPECT_LT(surface.values().at(found).loss, before.loss);
    EXPECT_GE(surface.values().at(found).gain, 0.4);
    EXPECT_LT(found.generated, found.prompt.text);
  }
}

TEST(GeneratedThreshold, TradesGeneratedTokensForThePromptAsLongAsItPays) {
  // A generated token costs ten times what one of the prompt does; there are two of the prompt for each.
  const auto value = [](const PhaseIndex& index) {
    const double text = index.prompt.text, generated = index.generated;
    return PointValue{text * text + 10.0 * generated * generated, 2.0 * text + generated};
  };
  const PhaseIndex start{{6, 0}, 6};
  const PhaseIndex found = walk_generated_threshold(start.prompt, value(start), {{20, 1}, 18.0, 30}, value);
  EXPECT_GE(value(found).gain, 18.0);
  EXPECT_EQ(found.generated, 0);
  EXPECT_EQ(found.prompt.text, 9);
  EXPECT_LT(value(found).loss, value(start).loss / 4);
}

TEST(GeneratedThreshold, StaysAtTheStartWithoutPasses) {
  const PhaseIndex found = walk_generated_threshold({3, 2}, {1.0, 1.0}, {{5, 5}, 0.0, 0}, [](const PhaseIndex&) {
    ADD_FAILURE() << "measured";
    return PointValue{};
  });
  EXPECT_EQ(found, (PhaseIndex{{3, 2}, 3}));
}

}  // namespace
}  // namespace skipper
