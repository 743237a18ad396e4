#include "tensor/safetensors.h"

#include <gmock/gmock.h>

#include "tests/tensor/safetensors_writer.h"

namespace skipper {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class SafetensorsFileTest : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& bytes) { return write_file(directory_.path() / "weights.safetensors", bytes); }

  std::string message_for(const std::string& bytes) {
    const std::filesystem::path path = write(bytes);
    return invalid_file_message([&] { SafetensorsFile file(path); });
  }

  // One header entry "a" with this body, `num_bytes` of data.
  std::string message_for_entry(const std::string& entry, size_t num_bytes) {
    return message_for(safetensors_bytes(R"({"a":)" + entry + "}", std::string(num_bytes, '\0')));
  }

  TemporaryDirectory directory_;
};

TEST_F(SafetensorsFileTest, ViewsEveryTensorWithoutItsMetadata) {
  const float values[3] = {1.0f, -2.5f, 3.0f};
  const std::string data = std::string("\x00\x3f\x80\x3f", 4) + std::string(reinterpret_cast<const char*>(values), 12);
  const SafetensorsFile file(write(safetensors_bytes(
      R"({"__metadata__":{"format":"pt"},"h":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},)"
      R"("f":{"dtype":"F32","shape":[3,1],"data_offsets":[4,16]},"none":{"dtype":"U8","shape":[0,7],"data_offsets":[4,4]}})",
      data)));
  ASSERT_EQ(file.tensors().size(), 3u);
  const Tensor& half = file.tensors().at("h");
  EXPECT_EQ(static_cast<float>(half.data<bf16>()[0]), 0.5f);
  EXPECT_EQ(static_cast<float>(half.data<bf16>()[1]), 1.0f);
  EXPECT_EQ(file.tensors().at("f").shape(), Shape({3, 1}));
  EXPECT_EQ(file.tensors().at("f").data<float>()[1], -2.5f);
  EXPECT_EQ(file.tensors().at("none").num_elements(), 0);
}

TEST_F(SafetensorsFileTest, AcceptsAFileWithoutTensors) {
  EXPECT_TRUE(SafetensorsFile(write(safetensors_bytes("{}", ""))).tensors().empty());
}

TEST_F(SafetensorsFileTest, NamesAMissingFileAndADirectoryInItsPlace) {
  const auto missing = directory_.path() / "absent.safetensors";
  EXPECT_THAT(invalid_file_message([&] { SafetensorsFile file(missing); }), HasSubstr("absent.safetensors"));
  EXPECT_THAT(invalid_file_message([&] { SafetensorsFile file(directory_.path()); }), HasSubstr("not a regular file"));
}

TEST_F(SafetensorsFileTest, RefusesAFileTooShortForItsHeader) {
  EXPECT_THAT(message_for(""), HasSubstr("only 0 bytes"));
  EXPECT_THAT(message_for("1234567"), HasSubstr("only 7 bytes"));
  EXPECT_THAT(message_for(little_endian(0)), HasSubstr("only 8 bytes"));
  EXPECT_THAT(message_for(little_endian(16) + "{}"), HasSubstr("header of 16 bytes"));
}

TEST_F(SafetensorsFileTest, RefusesHugeHeaderLengths) {
  for (const uint64_t length : {uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{0} - 7, uint64_t{100'000'001}}) {
    EXPECT_THAT(message_for(little_endian(length) + "{}      "), HasSubstr(std::to_string(length)));
  }
}

TEST_F(SafetensorsFileTest, RefusesAForeignFile) {
  EXPECT_THAT(message_for(std::string("PK\x03\x04\0\0\0\0archive", 15)), HasSubstr("header"));
  EXPECT_THAT(message_for(safetensors_bytes("not json", "")), HasSubstr("no JSON object"));
  EXPECT_THAT(message_for(safetensors_bytes("[1, 2]", "")), HasSubstr("no JSON object"));
  EXPECT_THAT(message_for(safetensors_bytes("{\"\xff\xfe\":1}", "")), HasSubstr("no JSON object"));
  EXPECT_THAT(message_for(safetensors_bytes(std::string(100000, '['), "")), HasSubstr("no JSON object"));
}

TEST_F(SafetensorsFileTest, RefusesAnEntryWithoutDtypeShapeOrOffsets) {
  for (const char* entry :
       {"1", "[]", "{}", R"({"dtype":"F32","shape":[1]})", R"({"dtype":7,"shape":[1],"data_offsets":[0,4]})",
        R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", R"({"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})",
        R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})", R"({"dtype":"F32","shape":[1],"data_offsets":[0]})",
        R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,8]})", R"({"dtype":"F32","shape":[1],"data_offsets":["0","4"]})",
        R"({"dtype":"F32","shape":[99999999999999999999999],"data_offsets":[0,4]})"}) {
    EXPECT_THAT(message_for_entry(entry, 4), AllOf(HasSubstr("tensor \"a\""), HasSubstr("lacks a valid"))) << entry;
  }
}

TEST_F(SafetensorsFileTest, RefusesOffsetsOutsideTheFile) {
  EXPECT_THAT(message_for_entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})", 7), HasSubstr("spans bytes 0 to 8"));
  EXPECT_THAT(message_for_entry(R"({"dtype":"F32","shape":[1],"data_offsets":[8,4]})", 16), HasSubstr("spans bytes 8 to 4"));
  EXPECT_THAT(message_for_entry(R"({"dtype":"F8","shape":[1],"data_offsets":[18446744073709551608,18446744073709551615]})", 4),
              HasSubstr("spans bytes"));
}

TEST_F(SafetensorsFileTest, RefusesASizeThatIsNotShapeTimesElement) {
  EXPECT_THAT(message_for_entry(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})", 8),
              AllOf(HasSubstr("has 8 bytes"), HasSubstr("F32 need 12")));
  EXPECT_THAT(message_for_entry(R"({"dtype":"BF16","shape":[],"data_offsets":[0,4]})", 4), HasSubstr("need 2"));
  EXPECT_THAT(message_for_entry(R"({"dtype":"F64","shape":[1],"data_offsets":[0,4]})", 4), HasSubstr("need 8"));
}

TEST_F(SafetensorsFileTest, RefusesShapesWhoseProductOverflows) {
  for (const char* shape : {"[4294967296,4294967296]", "[9223372036854775808]", "[4611686018427387904,4,0]",
                            "[9223372036854775807,9223372036854775807,2]"}) {
    const std::string entry = std::string(R"({"dtype":"F32","shape":)") + shape + R"(,"data_offsets":[0,0]})";
    EXPECT_THAT(message_for_entry(entry, 0), HasSubstr("more than 2^63")) << shape;
  }
}

TEST_F(SafetensorsFileTest, NamesBothOverlappingTensors) {
  const std::string header = R"({"first":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                             R"("second":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})";
  EXPECT_THAT(message_for(safetensors_bytes(header, std::string(8, '\0'))), AllOf(HasSubstr("first"), HasSubstr("second")));
}

TEST_F(SafetensorsFileTest, EscapesHostileNamesInMessages) {
  EXPECT_THAT(message_for(safetensors_bytes(R"({"x\nskipper: ready":1})", "")), HasSubstr(R"("x\nskipper: ready")"));
}

TEST_F(SafetensorsFileTest, KeepsUnsupportedTensorsApartWithTheReason) {
  const SafetensorsFile file(write(safetensors_bytes(
      R"({"double":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"future":{"dtype":"F3","shape":[9],"data_offsets":[8,9]},)"
      R"("odd":{"dtype":"BF16","shape":[1],"data_offsets":[9,11]},)"
      R"("deep":{"dtype":"U8","shape":[1,1,1,1,1,1],"data_offsets":[11,12]},)"
      R"("good":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})",
      std::string(16, '\0'))));
  EXPECT_EQ(file.tensors().size(), 1u);
  EXPECT_THAT(file.refusals().at("double"), HasSubstr("F64"));
  EXPECT_THAT(file.refusals().at("future"), HasSubstr("F3"));
  EXPECT_THAT(file.refusals().at("odd"), HasSubstr("not aligned"));
  EXPECT_THAT(file.refusals().at("deep"), HasSubstr("6 dimensions"));
}

}  // namespace
}  // namespace skipper
