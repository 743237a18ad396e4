#include "model/quantized_checkpoint.h"

#include <gmock/gmock.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tensor/safetensors_writer.h"
#include "tests/tensor/safetensors_writer.h"

namespace skipper {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr ExpertRange kRange{4, 8};

json sound() {
  return {{"quant_method", "skipper"},
          {"version", 1},
          {"source_fingerprint", "0123456789abcdef"},
          {"experts", "int4a-g32"},
          {"expert_formats", {{{"layer", 3}, {"expert", 7}, {"format", "int8-g64"}}}},
          {"dense", "int8-g128"},
          {"calibration", {{"data", "calibration"}, {"samples", 9}, {"tokens", 4000}}}};
}

std::optional<QuantizedFormats> read(const json& quantization) {
  const json root = {{kQuantizationKey, quantization}};
  return read_quantized_formats(JsonFields(root, "config.json"), kRange);
}

TEST(QuantizedFormats, AreReadAsTheyAreWritten) {
  const QuantizedFormats formats = read(sound()).value();
  EXPECT_EQ(formats.source_fingerprint, "0123456789abcdef");
  EXPECT_EQ(name_of(formats.of_expert(3, 7)), "int8-g64");
  EXPECT_EQ(name_of(formats.of_expert(3, 6)), "int4a-g32");
  EXPECT_EQ(name_of(formats.of_expert(0, 7)), "int4a-g32");
  EXPECT_EQ(name_of(formats.dense.value()), "int8-g128");
  EXPECT_EQ(formats.calibration, (CalibrationRecord{"calibration", 9, 4000}));
  EXPECT_EQ(to_json(formats), sound());
}

TEST(QuantizedFormats, NeedNeitherExceptionsNorDenseOnes) {
  json shorter = sound();
  shorter.erase("expert_formats");
  shorter.erase("dense");
  shorter.erase("calibration");
  const QuantizedFormats formats = read(shorter).value();
  EXPECT_FALSE(formats.dense.has_value());
  EXPECT_FALSE(formats.calibration.has_value());
  EXPECT_TRUE(formats.expert_formats.empty());
  EXPECT_EQ(to_json(formats), shorter);
}

TEST(QuantizedFormats, AreAbsentInOtherCheckpoints) {
  const json root = {{"model_type", "qwen3_moe"}};
  EXPECT_FALSE(read_quantized_formats(JsonFields(root, "config.json"), kRange).has_value());
  EXPECT_FALSE(read(json()).has_value());
}

struct BadFormats {
  const char* name;
  json patch;  // merged into sound(); null removes a key
  std::vector<std::string> message;
};

class RefusedFormats : public testing::TestWithParam<BadFormats> {};

TEST_P(RefusedFormats, NameTheKeyAndTheValue) {
  json quantization = sound();
  quantization.merge_patch(GetParam().patch);
  try {
    read(quantization);
    ADD_FAILURE() << "expected InvalidFile";
  } catch (const InvalidFile& error) {
    EXPECT_THAT(error.what(), HasSubstr("config.json: quantization_config"));
    for (const std::string& part : GetParam().message) EXPECT_THAT(error.what(), HasSubstr(part));
  }
}

json one_exception(const json& layer, const json& expert, const json& format) {
  return {{"expert_formats", {{{"layer", layer}, {"expert", expert}, {"format", format}}}}};
}

INSTANTIATE_TEST_SUITE_P(
    Configs, RefusedFormats,
    testing::Values(
        BadFormats{"ForeignMethod", {{"quant_method", "gptq"}}, {"quant_method", "'gptq'"}},
        BadFormats{"NoMethod", {{"quant_method", nullptr}}, {"quant_method", "''"}},
        BadFormats{"NewerVersion", {{"version", 2}}, {"version", "2"}},
        BadFormats{"NoVersion", {{"version", nullptr}}, {"version: is missing"}},
        BadFormats{"NoFingerprint", {{"source_fingerprint", nullptr}}, {"source_fingerprint: is missing"}},
        BadFormats{"UnknownFormat", {{"experts", "int4b-g32"}}, {"experts", "'int4b-g32'", "did you mean"}},
        BadFormats{"FloatExperts", {{"experts", "f32"}}, {"experts", "'f32' is no format of a quantised checkpoint"}},
        BadFormats{"DenseNumber", {{"dense", 8}}, {"dense", "expected a string, found 8"}},
        BadFormats{"UnknownKey", {{"group_size", 32}}, {"group_size: unknown key"}},
        BadFormats{"NoSamples", {{"calibration", {{"samples", 0}}}}, {"calibration: samples", "0"}},
        BadFormats{"UnknownCalibrationKey", {{"calibration", {{"rows", 1}}}}, {"calibration: rows: unknown key"}},
        BadFormats{"ExceptionsNoList", {{"expert_formats", 7}}, {"expert_formats: is no list"}},
        BadFormats{"ExceptionNoObject", {{"expert_formats", {7}}}, {"expert_formats[0]: is no object"}},
        BadFormats{"LayerTooHigh", one_exception(4, 0, "bf16"), {"expert_formats[0]: layer", "4", "0 to 3"}},
        BadFormats{"ExpertNegative", one_exception(0, -1, "bf16"), {"expert_formats[0]: expert", "-1", "0 to 7"}},
        BadFormats{"ExceptionFormat", one_exception(0, 0, "int5"), {"expert_formats[0]: format", "'int5'"}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(QuantizedFormats, RefuseAnExpertNamedTwice) {
  json twice = sound();
  twice["expert_formats"].push_back(twice["expert_formats"][0]);
  EXPECT_THAT([&] { read(twice); },
              ThrowsMessage<InvalidFile>(AllOf(HasSubstr("expert_formats[1]"), HasSubstr("expert 7 of layer 3 a second time"))));
}

TEST(GateUpShape, PadsBothToWholePanels) {
  EXPECT_EQ(gate_up_shape(1, 5).num_rows, 32);
  EXPECT_EQ(gate_up_shape(16, 5).num_rows, 32);
  EXPECT_EQ(gate_up_shape(17, 5).num_rows, 64);
  EXPECT_EQ(gate_up_shape(96, 5).num_columns, 5);
}

// A matrix of 17 × 40 in int4a-g32 (2 panels, 5 chunks of 8 inputs, 2 groups), preceded in the file by `padding` bytes.
struct PackedFile {
  static constexpr PackedShape kShape{17, 40};
  static constexpr WeightFormat kFormat{WeightKind::kInt4Asymmetric, 32};

  TemporaryDirectory directory;
  PackedMatrix matrix = empty_packed(kFormat, kShape);

  PackedFile() {
    Tensor weights = Tensor::empty({17, 40}, DType::kF32);
    for (int64_t i = 0; i < weights.num_elements(); ++i) weights.data<float>()[i] = static_cast<float>(i * 37 % 101) - 50.0f;
    pack_into(weights, matrix);
  }

  void write(DType scales_type = DType::kBF16) const {
    SafetensorsWriter writer(directory.path(), {{"m.codes", DType::kU8, matrix.codes.shape()},
                                                {"m.scales", scales_type, matrix.scales.shape()},
                                                {"m.zeros", DType::kU8, matrix.zeros.shape()}});
    writer.write("m.codes", matrix.codes);
    writer.write("m.scales", scales_type == DType::kBF16 ? matrix.scales : Tensor::zeros(matrix.scales.shape(), scales_type));
    writer.write("m.zeros", matrix.zeros);
    writer.finish();
  }

  // A file as another program may write it: the codes on an odd byte.
  void write_misaligned() const {
    const size_t codes = matrix.codes.num_bytes(), scales = matrix.scales.num_bytes(), zeros = matrix.zeros.num_bytes();
    const auto entry = [](const char* dtype, const Shape& shape, size_t begin, size_t bytes) {
      json dims = json::array();
      for (int axis = 0; axis < shape.rank(); ++axis) dims.push_back(shape[axis]);
      return json{{"dtype", dtype}, {"shape", dims}, {"data_offsets", {begin, begin + bytes}}};
    };
    const json header = {{"m.scales", entry("BF16", matrix.scales.shape(), 0, scales)},
                         {"odd", entry("U8", {1}, scales, 1)},
                         {"m.codes", entry("U8", matrix.codes.shape(), scales + 1, codes)},
                         {"m.zeros", entry("U8", matrix.zeros.shape(), scales + 1 + codes, zeros)}};
    const auto text = [](const Tensor& tensor) {
      return std::string(reinterpret_cast<const char*>(tensor.bytes()), tensor.num_bytes());
    };
    write_file(directory.path() / "model.safetensors",
               safetensors_bytes(header.dump(), text(matrix.scales) + "x" + text(matrix.codes) + text(matrix.zeros)));
  }
};

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.bytes(), b.bytes(), a.num_bytes()) == 0;
}

void expect_same(const PackedMatrix& found, const PackedMatrix& expected) {
  EXPECT_TRUE(same_bytes(found.codes, expected.codes));
  EXPECT_TRUE(same_bytes(found.scales, expected.scales));
  EXPECT_TRUE(same_bytes(found.zeros, expected.zeros));
  EXPECT_EQ(found.num_rows, expected.num_rows);
  EXPECT_EQ(found.num_columns, expected.num_columns);
  EXPECT_EQ(found.activations, expected.activations);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(found.codes.bytes()) % 64, 0u);
}

TEST(ReadPacked, GivesViewsOfTheMapping) {
  PackedFile file;
  file.write();
  const Checkpoint checkpoint(file.directory.path());
  const PackedMatrix found = read_packed(checkpoint, "m", PackedFile::kFormat, PackedFile::kShape);
  expect_same(found, file.matrix);
  EXPECT_EQ(found.codes.bytes(), checkpoint.get("m.codes").bytes());
}

TEST(ReadPacked, CopiesCodesThatAreNotAligned) {
  PackedFile file;
  file.write_misaligned();
  expect_same(read_packed(Checkpoint(file.directory.path()), "m", PackedFile::kFormat, PackedFile::kShape), file.matrix);
}

TEST(ReadPacked, NamesWhatDoesNotFit) {
  PackedFile file;
  file.write(DType::kF32);
  const Checkpoint checkpoint(file.directory.path());
  const auto read_as = [&](const std::string& name, const WeightFormat& format, const PackedShape& shape) {
    return [&checkpoint, name, format, shape] { read_packed(checkpoint, name, format, shape); };
  };
  EXPECT_THAT(read_as("m", PackedFile::kFormat, PackedFile::kShape),
              ThrowsMessage<InvalidFile>(HasSubstr("m.scales has element type f32, expected bf16")));
  EXPECT_THAT(read_as("other", PackedFile::kFormat, PackedFile::kShape), ThrowsMessage<InvalidFile>(HasSubstr("other.codes")));
  EXPECT_THAT(read_as("m", {WeightKind::kInt8, 32}, PackedFile::kShape),
              ThrowsMessage<InvalidFile>(AllOf(HasSubstr("m.codes"), HasSubstr("expected"))));
  EXPECT_THAT(read_as("m", PackedFile::kFormat, {33, 40}), ThrowsMessage<InvalidFile>(HasSubstr("m.codes")));
}

}  // namespace
}  // namespace skipper
