#include "quantization/activation_statistics.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"
#include "tensor/safetensors.h"
#include "tests/model/prompt_fixture.h"
#include "tests/model/sequence_runner.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

using testing::ElementsAre;
using testing::FloatNear;
using testing::IsEmpty;

Tensor random_rows(int64_t num_rows, int64_t width, DType dtype) {
  std::mt19937 generator(static_cast<uint32_t>(num_rows * 1000 + width));
  std::normal_distribution<float> normal;
  Tensor rows = Tensor::empty({num_rows, width}, dtype);
  for (int64_t i = 0; i < rows.num_elements(); ++i) {
    if (dtype == DType::kBF16) {
      rows.data<bf16>()[i] = bf16(normal(generator));
    } else {
      rows.data<float>()[i] = normal(generator);
    }
  }
  return rows;
}

Tensor integers(const std::vector<int32_t>& values) {
  return Tensor::borrow_const(values.data(), {static_cast<int64_t>(values.size())}, DType::kI32);
}

// `num_rows` rows of ones for one expert of layer 2, `size` in its first channel.
void add_expert_rows(int expert, int64_t num_rows, float size, MatrixInput input, ActivationStatistics& statistics) {
  Tensor rows = Tensor::empty({num_rows, 3}, DType::kF32);
  for (int64_t row = 0; row < num_rows; ++row) std::ranges::copy(std::vector{size, 1.0f, 1.0f}, rows.row<float>(row));
  const std::vector<int32_t> bounds{0, static_cast<int32_t>(num_rows)};
  const Tensor offsets = integers(bounds);
  const std::vector<ExpertSlot> slots{{expert, {}}};
  Stream stream;
  statistics.add({input, 2, rows, slots, nullptr, &offsets}, stream);
}

TEST(ActivationStatistics, SumSquaresOfRowsOfAnyTypeAndWidthOnAnyThreads) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t width : {1, 7, 512, 1031}) {
      for (const int threads : {1, 3}) {
        const Tensor rows = random_rows(13, width, dtype);
        ThreadPool workers(threads);
        Stream stream(workers);
        ActivationStatistics statistics;
        statistics.add({MatrixInput::kDown, 4, rows}, stream);
        statistics.add({MatrixInput::kDown, 4, rows.first(0)}, stream);
        statistics.add({MatrixInput::kDown, 4, rows.first(2)}, stream);
        const ChannelSquares* squares = statistics.find({MatrixInput::kDown, 4});
        ASSERT_NE(squares, nullptr);
        EXPECT_EQ(squares->num_rows, 15);
        for (int64_t channel = 0; channel < width; ++channel) {
          double expected = 0;
          for (int64_t row = 0; row < 15; ++row) {
            const int64_t i = row % 13 * width + channel;
            const double value = dtype == DType::kBF16 ? static_cast<float>(rows.data<bf16>()[i]) : rows.data<float>()[i];
            expected += value * value;
          }
          ASSERT_DOUBLE_EQ(squares->sums[static_cast<size_t>(channel)], expected) << channel;
        }
      }
    }
  }
}

TEST(ActivationStatistics, GiveGatheredRowsToTheirExperts) {
  const std::vector<float> values{1, 2, 10, 20, 100, 200};
  const Tensor rows = Tensor::borrow_const(values.data(), {3, 2}, DType::kF32);
  const std::vector<int32_t> index_values{2, 0, 0, 1}, bounds{0, 2, 2, 4};
  const Tensor index = integers(index_values), offsets = integers(bounds);
  const std::vector<ExpertSlot> slots{{5, {}}, {6, {}}, {9, {}}};
  Stream stream;
  ActivationStatistics statistics;
  statistics.add({MatrixInput::kGateUp, 1, rows, slots, &index, &offsets}, stream);
  ASSERT_NE(statistics.find({MatrixInput::kGateUp, 1, 5}), nullptr);
  EXPECT_THAT(statistics.find({MatrixInput::kGateUp, 1, 5})->sums, ElementsAre(10001, 40004));
  EXPECT_EQ(statistics.find({MatrixInput::kGateUp, 1, 6}), nullptr);
  EXPECT_THAT(statistics.find({MatrixInput::kGateUp, 1, 9})->sums, ElementsAre(101, 404));
}

TEST(ActivationStatistics, ImportanceIsTheMeanSquareAndAHundredthOfItsMean) {
  ActivationStatistics statistics;
  add_expert_rows(0, 32, 4, MatrixInput::kDown, statistics);
  EXPECT_THAT(statistics.importance({MatrixInput::kDown, 2, 0}), ElementsAre(16.06f, 1.06f, 1.06f));
}

TEST(ActivationStatistics, ExpertsWithFewRowsTakeTheLayersMeanForGateAndUpAndNoneForDown) {
  ActivationStatistics statistics;
  for (const MatrixInput input : {MatrixInput::kGateUp, MatrixInput::kDown}) {
    add_expert_rows(0, 31, 2, input, statistics);
    EXPECT_THAT(statistics.importance({input, 2, 0}), IsEmpty()) << "the layer has 31 rows, too";
    add_expert_rows(3, 33, 4, input, statistics);
  }
  const float mean = (31 * 4.0f + 33 * 16.0f) / 64, damping = 0.01f * (mean + 2) / 3;
  EXPECT_THAT(statistics.importance({MatrixInput::kGateUp, 2, 0}),
              ElementsAre(FloatNear(mean + damping, 1e-4f), FloatNear(1 + damping, 1e-4f), FloatNear(1 + damping, 1e-4f)));
  EXPECT_EQ(statistics.importance({MatrixInput::kGateUp, 2, 1}), statistics.importance({MatrixInput::kGateUp, 2, 0}));
  EXPECT_THAT(statistics.importance({MatrixInput::kDown, 2, 0}), IsEmpty());
  EXPECT_EQ(statistics.num_measured_experts(), 1);
  EXPECT_NE(statistics.importance({MatrixInput::kGateUp, 2, 3}), statistics.importance({MatrixInput::kGateUp, 2, 0}));
  EXPECT_THAT(statistics.importance({MatrixInput::kGateUp, 1, 3}), IsEmpty()) << "of another layer";
  EXPECT_THAT(statistics.importance({MatrixInput::kGateUp, 2}), IsEmpty()) << "of a dense matrix";
}

TEST(ActivationStatistics, SilentInputsHaveNoImportanceAndInfiniteOnesAreRefused) {
  ActivationStatistics statistics;
  Stream stream;
  statistics.add({MatrixInput::kHead, 0, Tensor::zeros({40, 3}, DType::kF32)}, stream);
  EXPECT_THAT(statistics.importance({MatrixInput::kHead}), IsEmpty());
  add_expert_rows(0, 40, std::numeric_limits<float>::quiet_NaN(), MatrixInput::kDown, statistics);
  EXPECT_THROW(statistics.importance({MatrixInput::kDown, 2, 0}), InvalidFile);
}

// Transformers' sums by the names that tools/make_activation_fixtures.py gives: "gate_up.1.6".
class Reference {
 public:
  explicit Reference(const std::filesystem::path& path) : file_(path) {}

  std::vector<int32_t> token_ids() const { return values<int32_t>("token_ids"); }
  std::vector<float> squares(const std::string& name) const { return values<float>(name + ".squares"); }
  int64_t num_rows(const std::string& name) const { return values<int32_t>(name + ".rows").front(); }
  bool has(const std::string& name) const { return file_.tensors().contains(name + ".rows"); }
  size_t num_inputs() const { return (file_.tensors().size() - 1) / 2; }

 private:
  template <typename T>
  std::vector<T> values(const std::string& name) const {
    const auto span = file_.tensors().at(name).span<T>();
    return {span.begin(), span.end()};
  }

  SafetensorsFile file_;
};

std::string name_of(const InputKey& key) {
  const char* const inputs[] = {"attention", "attention_output", "gate_up", "down", "head"};
  const std::string name = std::string(inputs[static_cast<size_t>(key.input)]) + "." + std::to_string(key.layer);
  return key.expert < 0 ? name : name + "." + std::to_string(key.expert);
}

// The tiny model's statistics with everything in FP32, its sequence cut into steps of `chunk_size` tokens.
ActivationStatistics statistics_of_tiny_model(const std::vector<int32_t>& token_ids, int64_t chunk_size) {
  ActivationStatistics statistics;
  RunFormats formats{.kv = DType::kF32, .rows = {PayloadFormat::kF32, DType::kF32}, .num_threads = 2};
  formats.weights.activation_dtype = DType::kF32;
  spawn_ranks(1, [&](Communicator& comm) {
    const std::filesystem::path model = model_fixture("tiny_qwen3_moe");
    const LevelTable levels = unskipped_levels(load_model_config(model).num_moe_layers());
    SequenceRunner runner(model, comm, levels, formats);
    runner.model().set_activation_observer([&](const ObservedRows& rows, Stream& stream) { statistics.add(rows, stream); });
    TestSequence sequence{token_ids, {}, {}};
    for (size_t row = 0; row < token_ids.size(); ++row) sequence.rows.push_back(static_cast<int32_t>(row));
    runner.run({sequence}, plan_for(static_cast<int64_t>(token_ids.size()), chunk_size));
  });
  return statistics;
}

TEST(ActivationStatistics, AreThoseOfTransformersHoweverTheSequenceIsCut) {
  const auto fixtures = std::filesystem::path(SKIPPER_SOURCE_DIR) / "tests" / "quantization" / "fixtures";
  const Reference reference(fixtures / "tiny_activations.safetensors");
  for (const int64_t chunk_size : {61, 1, 17}) {
    const ActivationStatistics statistics = statistics_of_tiny_model(reference.token_ids(), chunk_size);
    size_t num_found = 0;
    for (const MatrixInput input : {MatrixInput::kAttention, MatrixInput::kAttentionOutput, MatrixInput::kGateUp,
                                    MatrixInput::kDown, MatrixInput::kHead}) {
      for (int layer = 0; layer < 3; ++layer) {
        for (int expert = -1; expert < 7; ++expert) {
          const InputKey key{input, layer, expert};
          const ChannelSquares* squares = statistics.find(key);
          ASSERT_EQ(squares != nullptr, reference.has(name_of(key))) << name_of(key);
          if (squares == nullptr) continue;
          ++num_found;
          EXPECT_EQ(squares->num_rows, reference.num_rows(name_of(key))) << name_of(key);
          const std::vector<float> expected = reference.squares(name_of(key));
          ASSERT_EQ(squares->sums.size(), expected.size()) << name_of(key);
          for (size_t i = 0; i < expected.size(); ++i) {
            EXPECT_NEAR(squares->sums[i], expected[i], 1e-4 * expected[i] + 1e-9) << name_of(key) << " channel " << i;
          }
        }
      }
    }
    EXPECT_EQ(num_found, reference.num_inputs());
  }
}

}  // namespace
}  // namespace skipper
