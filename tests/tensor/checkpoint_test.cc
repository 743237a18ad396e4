#include <gmock/gmock.h>

#include <numeric>

#include "tensor/safetensors.h"
#include "tests/tensor/safetensors_writer.h"

namespace skipper {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class CheckpointTest : public testing::Test {
 protected:
  // A shard with one U8 tensor of `count` bytes, all of them `value`.
  void write_shard(const std::string& file, const std::string& tensor, size_t count, char value) {
    const std::string size = std::to_string(count);
    const std::string header = "{\"" + tensor + R"(":{"dtype":"U8","shape":[)" + size + R"(],"data_offsets":[0,)" + size + "]}}";
    write_file(directory_.path() / file, safetensors_bytes(header, std::string(count, value)));
  }
  void write_index(const std::string& text) { write_file(directory_.path() / "model.safetensors.index.json", text); }

  std::string open_message() {
    return invalid_file_message([&] { Checkpoint checkpoint(directory_.path()); });
  }

  TemporaryDirectory directory_;
};

TEST_F(CheckpointTest, ReadsASingleFile) {
  write_shard("model.safetensors", "w", 5, '\7');
  const Checkpoint checkpoint(directory_.path());
  EXPECT_TRUE(checkpoint.has("w"));
  EXPECT_FALSE(checkpoint.has("v"));
  EXPECT_EQ(checkpoint.get("w", {5}).data<uint8_t>()[4], 7);
}

TEST_F(CheckpointTest, ReadsTheShardsOfItsIndex) {
  write_shard("a.safetensors", "x", 3, '\1');
  write_shard("b.safetensors", "y", 4, '\2');
  write_index(R"({"metadata":{},"weight_map":{"y":"b.safetensors","x":"a.safetensors"}})");
  const Checkpoint checkpoint(directory_.path());
  EXPECT_THAT(checkpoint.names(), ElementsAre("x", "y"));
  EXPECT_EQ(checkpoint.get("x", {3}).data<uint8_t>()[0], 1);
  EXPECT_EQ(checkpoint.get("y", {4}).data<uint8_t>()[3], 2);
}

TEST_F(CheckpointTest, NamesTheDirectoryWhenItHoldsNoWeights) {
  EXPECT_THAT(open_message(), AllOf(HasSubstr(directory_.path().string()), HasSubstr("neither")));
  EXPECT_THAT(invalid_file_message([&] { Checkpoint checkpoint(directory_.path() / "absent"); }), HasSubstr("not a directory"));
}

TEST_F(CheckpointTest, NamesAMissingShard) {
  write_shard("a.safetensors", "x", 3, '\1');
  write_index(R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors"}})");
  EXPECT_THAT(open_message(), AllOf(HasSubstr("b.safetensors"), HasSubstr("missing")));
}

TEST_F(CheckpointTest, NamesATensorThatItsShardLacks) {
  write_shard("a.safetensors", "x", 3, '\1');
  write_index(R"({"weight_map":{"z":"a.safetensors"}})");
  EXPECT_THAT(open_message(), AllOf(HasSubstr("\"z\""), HasSubstr("a.safetensors")));
}

TEST_F(CheckpointTest, RefusesAnIndexThatPointsOutsideItsDirectory) {
  for (const char* file : {"../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ".", "", "a\\u0000b"}) {
    write_index(std::string(R"({"weight_map":{"x":")") + file + "\"}}");
    EXPECT_THAT(open_message(), AllOf(HasSubstr("weight_map places tensor \"x\""), HasSubstr("same directory"))) << file;
  }
}

TEST_F(CheckpointTest, RefusesAnIndexWithoutWeightMap) {
  for (const char* text : {"{}", "[]", R"({"weight_map":[]})"}) {
    write_index(text);
    EXPECT_THAT(open_message(), HasSubstr("weight_map")) << text;
  }
  write_index(R"({"weight_map":{"x":7}})");
  EXPECT_THAT(open_message(), HasSubstr("\"x\""));
}

TEST_F(CheckpointTest, NamesTensorAndBothShapesWhenTheyDiffer) {
  write_shard("model.safetensors", "w", 6, '\0');
  const Checkpoint checkpoint(directory_.path());
  EXPECT_THAT(invalid_file_message([&] { checkpoint.get("w", {2, 3}); }),
              AllOf(HasSubstr("\"w\""), HasSubstr("[6]"), HasSubstr("[2, 3]")));
  EXPECT_THAT(invalid_file_message([&] { checkpoint.get("v", {6}); }),
              AllOf(HasSubstr("\"v\""), HasSubstr(directory_.path().string())));
}

TEST_F(CheckpointTest, RefusesAnUnsupportedElementTypeOnlyWhenAsked) {
  write_file(directory_.path() / "model.safetensors",
             safetensors_bytes(R"({"w":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", std::string(8, '\0')));
  const Checkpoint checkpoint(directory_.path());
  EXPECT_TRUE(checkpoint.has("w"));
  EXPECT_THAT(invalid_file_message([&] { checkpoint.get("w", {1}); }), AllOf(HasSubstr("\"w\""), HasSubstr("F64")));
}

TEST_F(CheckpointTest, ReleasedPagesLeaveTheProcessAndReadTheSameAgain) {
  constexpr int64_t kBytes = 8 << 20;
  write_shard("model.safetensors", "w", kBytes, '\3');
  const Checkpoint checkpoint(directory_.path());
  const Tensor view = checkpoint.get("w", {kBytes});
  const auto sum = [&view] {
    const auto bytes = view.span<uint8_t>();
    return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
  };
  EXPECT_LT(checkpoint.resident_bytes(), static_cast<size_t>(kBytes / 2));  // the header, in huge pages at worst
  EXPECT_EQ(sum(), 3 * kBytes);
  EXPECT_GE(checkpoint.resident_bytes(), static_cast<size_t>(kBytes));
  checkpoint.release_pages(view);
  EXPECT_LE(checkpoint.resident_bytes(), size_t{64} << 10);
  EXPECT_EQ(sum(), 3 * kBytes);
}

TEST_F(CheckpointTest, PagesReadInAreResidentBeforeTheirFirstUse) {
  constexpr int64_t kBytes = 8 << 20;
  write_shard("model.safetensors", "w", kBytes, '\3');
  const Checkpoint checkpoint(directory_.path());
  const Tensor view = checkpoint.get("w", {kBytes});
  checkpoint.release_all_pages();
  checkpoint.read_in(view.slice(0, 0));
  EXPECT_LT(checkpoint.resident_bytes(), static_cast<size_t>(kBytes / 2));
  checkpoint.read_in(view);
  EXPECT_GE(checkpoint.resident_bytes(), static_cast<size_t>(kBytes));
}

TEST_F(CheckpointTest, NamesTheDirectoryWhenPagesCannotBeReadIn) {
  constexpr int64_t kBytes = 1 << 20;
  write_shard("model.safetensors", "w", kBytes, '\3');
  const Checkpoint checkpoint(directory_.path());
  std::filesystem::resize_file(directory_.path() / "model.safetensors", 4096);
  EXPECT_THAT(invalid_file_message([&] { checkpoint.read_in(checkpoint.get("w", {kBytes})); }),
              AllOf(HasSubstr(directory_.path().string()), HasSubstr("cannot be read")));
}

TEST_F(CheckpointTest, ReleasingLessThanAPageIsAllowed) {
  write_shard("model.safetensors", "w", 3, '\3');
  const Checkpoint checkpoint(directory_.path());
  const Tensor view = checkpoint.get("w", {3});
  checkpoint.release_pages(view);
  EXPECT_EQ(view.data<uint8_t>()[2], 3);
}

}  // namespace
}  // namespace skipper
