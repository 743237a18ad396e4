#include "quantization/output_directory.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "tests/tensor/safetensors_writer.h"

namespace skipper {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(OutputDirectory, GetsItsNameWhenItIsComplete) {
  const TemporaryDirectory parent;
  OutputDirectory out(parent.path() / "out");
  write_file(out.path() / "file", "x");
  EXPECT_FALSE(fs::exists(parent.path() / "out"));
  out.commit();
  EXPECT_TRUE(fs::exists(parent.path() / "out" / "file"));
  EXPECT_FALSE(fs::exists(out.path()));
}

TEST(OutputDirectory, LeavesNothingWhenItIsNotCompleted) {
  const TemporaryDirectory parent;
  {
    const OutputDirectory out(parent.path() / "out");
    write_file(out.path() / "file", "x");
  }
  EXPECT_TRUE(fs::is_empty(parent.path()));
}

TEST(OutputDirectory, TakesAnEmptyDirectoryAndATrailingSlash) {
  const TemporaryDirectory parent;
  fs::create_directory(parent.path() / "out");
  OutputDirectory out(parent.path() / "out/");
  EXPECT_EQ(out.path(), parent.path() / "out.partial");
  write_file(out.path() / "file", "x");
  out.commit();
  EXPECT_TRUE(fs::exists(parent.path() / "out" / "file"));
}

TEST(OutputDirectory, RefusesWhatExists) {
  const TemporaryDirectory parent;
  write_file(parent.path() / "file", "x");
  fs::create_directory_symlink(parent.path(), parent.path() / "link");
  fs::create_directory(parent.path() / "busy.partial");
  EXPECT_THAT([&] { OutputDirectory out(parent.path()); }, ThrowsMessage<Error>(HasSubstr("is not empty; name a new directory")));
  EXPECT_THAT([&] { OutputDirectory out(parent.path() / "file"); }, ThrowsMessage<Error>(HasSubstr("is no directory")));
  EXPECT_THAT([&] { OutputDirectory out(parent.path() / "link"); }, ThrowsMessage<Error>(HasSubstr("is a symbolic link")));
  EXPECT_THAT([&] { OutputDirectory out(parent.path() / "busy"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("busy.partial: exists"), HasSubstr("remove it"))));
  EXPECT_TRUE(fs::exists(parent.path() / "busy.partial")) << "it belongs to another run";
}

TEST(OutputDirectory, NamesAParentThatIsMissing) {
  const TemporaryDirectory parent;
  EXPECT_THAT([&] { OutputDirectory out(parent.path() / "none" / "out"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("none/out.partial"), HasSubstr("make its parent directory"))));
}

TEST(OutputDirectory, NamesTheSpaceItNeedsAndTheSpaceThereIs) {
  const TemporaryDirectory parent;
  const OutputDirectory out(parent.path() / "out");
  out.require_space(1);
  EXPECT_THAT([&] { out.require_space(size_t{1} << 60); },
              ThrowsMessage<Error>(AllOf(HasSubstr("out: needs 1152921504.607 GB"), HasSubstr("GB free"))));
}

TEST(OutputDirectory, DoesNotReplaceWhatWasMadeMeanwhile) {
  const TemporaryDirectory parent;
  OutputDirectory out(parent.path() / "out");
  fs::create_directory(parent.path() / "out");
  write_file(parent.path() / "out" / "other", "x");
  EXPECT_THAT([&] { out.commit(); }, ThrowsMessage<Error>(HasSubstr("it was made meanwhile")));
  EXPECT_TRUE(fs::exists(parent.path() / "out" / "other"));
}

}  // namespace
}  // namespace skipper
