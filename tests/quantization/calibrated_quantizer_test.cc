// What the importance of inputs changes in a quantised checkpoint.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_fields.h"
#include "kernels/integer_packing.h"
#include "model/checkpoint_reader.h"
#include "tests/model/prompt_fixture.h"
#include "tests/quantization/quantized_copy.h"

namespace skipper {
namespace {

constexpr int64_t kHidden = 32, kWidth = 24;  // of the tiny model
constexpr int64_t kLoud = 5;                  // the channel that dominates

// Rows of ones whose channel kLoud is 30.
void add_rows(MatrixInput input, int layer, int expert, ActivationStatistics& statistics) {
  const int64_t num_rows = 40, width = input == MatrixInput::kDown ? kWidth : kHidden;
  Tensor rows = Tensor::empty({num_rows, width}, DType::kF32);
  for (int64_t i = 0; i < rows.num_elements(); ++i) rows.data<float>()[i] = i % width == kLoud ? 30.0f : 1.0f;
  const std::vector<int32_t> bounds{0, static_cast<int32_t>(num_rows)};
  const Tensor offsets = Tensor::borrow_const(bounds.data(), {2}, DType::kI32);
  const std::vector<ExpertSlot> slots{{expert, {}}};
  Stream stream;
  if (expert < 0) return statistics.add({input, layer, rows}, stream);
  statistics.add({input, layer, rows, slots, nullptr, &offsets}, stream);
}

// Expert 3 of the second MoE layer, which is decoder layer 2, and the first layer's attention.
Calibration loud_calibration() {
  Calibration calibration;
  calibration.record = {"samples.jsonl", 4, 40};
  add_rows(MatrixInput::kGateUp, 1, 3, calibration.statistics);
  add_rows(MatrixInput::kDown, 1, 3, calibration.statistics);
  add_rows(MatrixInput::kAttention, 0, -1, calibration.statistics);
  return calibration;
}

class CalibratedCopy {
 public:
  CalibratedCopy(const std::string& experts, const std::string& dense) {
    QuantizationRequest request = request_for(model_fixture("tiny_qwen3_moe"), path(), experts, dense);
    request.calibrate = [] { return loud_calibration(); };
    ThreadPool workers(2);
    quantize_checkpoint(request, workers, ignore_progress);
  }

  std::filesystem::path path() const { return directory_.path() / "out"; }

 private:
  TemporaryDirectory directory_;
};

struct NamedMatrix {
  std::string name;      // of the packed matrix
  std::string original;  // tensor
  PackedShape shape;
};

Tensor rounded(const std::filesystem::path& model, const NamedMatrix& matrix, const std::string& format) {
  return unpack(read_packed(Checkpoint(model), matrix.name, parse_weight_format(format, "format"), matrix.shape));
}

// Σ importance · (weight − rounded)², with the importance of loud_calibration().
double weighted_error(const Tensor& rounded, const Tensor& original) {
  double error = 0;
  for (int64_t row = 0; row < original.dim(0); ++row) {
    for (int64_t column = 0; column < original.dim(1); ++column) {
      const double difference = double{rounded.row<float>(row)[column]} - static_cast<float>(original.row<bf16>(row)[column]);
      error += (column == kLoud ? 900.0 : 1.0) * difference * difference;
    }
  }
  return error;
}

class Calibrated : public testing::TestWithParam<std::string> {};

TEST_P(Calibrated, MatricesErrLessWhereTheirInputsAreLarge) {
  const CalibratedCopy calibrated(GetParam(), GetParam());
  const QuantizedCopy plain(model_fixture("tiny_qwen3_moe"), GetParam(), GetParam());
  const Checkpoint original(model_fixture("tiny_qwen3_moe"));
  const std::string experts = "model.layers.2.mlp.experts.3.";
  for (const NamedMatrix& matrix :
       {NamedMatrix{experts + "down", experts + "down_proj.weight", {kHidden, kWidth}},
        NamedMatrix{"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj.weight", {64, kHidden}},
        NamedMatrix{"model.layers.0.self_attn.v_proj", "model.layers.0.self_attn.v_proj.weight", {32, kHidden}}}) {
    const Tensor weights = original.get(matrix.original);
    const double with = weighted_error(rounded(calibrated.path(), matrix, GetParam()), weights);
    const double without = weighted_error(rounded(plain.path(), matrix, GetParam()), weights);
    EXPECT_LT(with, 0.8 * without) << matrix.name;
  }
}

TEST_P(Calibrated, OtherMatricesStayAsTheyAreWithoutCalibration) {
  const CalibratedCopy calibrated(GetParam(), GetParam());
  const QuantizedCopy plain(model_fixture("tiny_qwen3_moe"), GetParam(), GetParam());
  const Checkpoint first(calibrated.path()), second(plain.path());
  const auto same = [&](const std::string& name) {
    return std::ranges::equal(first.get(name).span<uint8_t>(), second.get(name).span<uint8_t>());
  };
  EXPECT_TRUE(same("model.layers.2.mlp.experts.2.down.codes")) << "too few rows of its own";
  EXPECT_TRUE(same("model.layers.0.mlp.experts.3.gate_up.codes")) << "the other MoE layer";
  EXPECT_TRUE(same("model.layers.1.self_attn.q_proj.codes")) << "another layer";
  EXPECT_TRUE(same("lm_head.codes"));
  EXPECT_FALSE(same("model.layers.2.mlp.experts.3.gate_up.codes"));
  EXPECT_FALSE(same("model.layers.2.mlp.experts.2.gate_up.codes")) << "by the mean of its layer";
}

INSTANTIATE_TEST_SUITE_P(Formats, Calibrated, testing::Values("int4-g32", "int4a-g32", "int3a-g32", "int2a-g32"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST(CalibratedConfig, NamesTheDataAndIsReadAgain) {
  const CalibratedCopy copy("int4a-g32", "");
  const nlohmann::json config = read_json_file(copy.path() / "config.json");
  const nlohmann::json expected = {{"data", "samples.jsonl"}, {"samples", 4}, {"tokens", 40}};
  EXPECT_EQ(config.at(kQuantizationKey).at("calibration"), expected);
  EXPECT_EQ(load_model_config(copy.path()).quantization->calibration, loud_calibration().record);
  const QuantizedCopy plain(model_fixture("tiny_qwen3_moe"), "int4a-g32", "");
  EXPECT_FALSE(load_model_config(plain.path()).quantization->calibration.has_value());
}

TEST(CalibratedQuantizer, LeavesNothingWhenCalibrationFails) {
  TemporaryDirectory directory;
  QuantizationRequest request = request_for(model_fixture("tiny_qwen3_moe"), directory.path() / "out", "int4a-g32", "");
  request.calibrate = []() -> Calibration { throw InvalidFile("no data"); };
  ThreadPool workers(1);
  EXPECT_THROW(quantize_checkpoint(request, workers, ignore_progress), InvalidFile);
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

}  // namespace
}  // namespace skipper
