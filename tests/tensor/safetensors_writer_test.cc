#include "tensor/safetensors_writer.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>
#include <numeric>

#include "base/error.h"
#include "tensor/safetensors.h"
#include "tests/tensor/safetensors_writer.h"

namespace skipper {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

Tensor counting_bytes(const Shape& shape) {
  Tensor tensor = Tensor::empty(shape, DType::kU8);
  std::iota(tensor.span<uint8_t>().begin(), tensor.span<uint8_t>().end(), uint8_t{1});
  return tensor;
}

Tensor counting_floats(const Shape& shape) {
  Tensor tensor = Tensor::empty(shape, DType::kF32);
  std::iota(tensor.span<float>().begin(), tensor.span<float>().end(), 0.5f);
  return tensor;
}

bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && std::memcmp(a.bytes(), b.bytes(), a.num_bytes()) == 0;
}

TensorPlan plan_of(const std::string& name, const Tensor& tensor) { return {name, tensor.dtype(), tensor.shape()}; }

TEST(SafetensorsWriter, WritesWhatTheReaderReads) {
  const TemporaryDirectory directory;
  const Tensor odd = counting_bytes({7}), matrix = counting_floats({3, 5}), empty = counting_floats({0, 4});
  SafetensorsWriter writer(directory.path(), {plan_of("odd", odd), plan_of("matrix", matrix), plan_of("empty", empty)});
  writer.write("matrix", matrix.slice(1, 3), 1);
  writer.write("odd", odd);
  writer.write("empty", empty);
  writer.write("matrix", matrix.slice(0, 1));
  writer.finish();

  const Checkpoint checkpoint(directory.path());
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"empty", "matrix", "odd"}));
  EXPECT_TRUE(same(checkpoint.get("odd", {7}), odd));
  EXPECT_TRUE(same(checkpoint.get("matrix", {3, 5}), matrix));
  EXPECT_EQ(checkpoint.get("empty").shape(), (Shape{0, 4}));
}

TEST(SafetensorsWriter, PlacesWholeVectorsOnVectorBoundariesWhateverComesBefore) {
  const TemporaryDirectory directory;
  const Tensor odd = counting_bytes({13}), vectors = counting_bytes({3, 64}), half = counting_bytes({32});
  SafetensorsWriter writer(directory.path(),
                           {plan_of("a", odd), plan_of("b", vectors), plan_of("c", half), plan_of("d", vectors)});
  for (const char* name : {"b", "d"}) writer.write(name, vectors);
  writer.write("a", odd);
  writer.write("c", half);
  writer.finish();
  const Checkpoint checkpoint(directory.path());
  for (const char* name : {"b", "d"}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(checkpoint.get(name).bytes()) % 64, 0u) << name;
    EXPECT_TRUE(same(checkpoint.get(name), vectors));
  }
  EXPECT_TRUE(same(checkpoint.get("a"), odd));
  EXPECT_TRUE(same(checkpoint.get("c"), half));
}

TEST(SafetensorsWriter, StartsAShardWhereTheNextTensorDoesNotFit) {
  const TemporaryDirectory directory;
  const Tensor small = counting_bytes({40}), large = counting_bytes({150});
  std::vector<TensorPlan> plans;
  for (const char* name : {"a", "b", "c"}) plans.push_back(plan_of(name, small));
  plans.push_back(plan_of("large", large));
  SafetensorsWriter writer(directory.path(), plans, 100);
  for (const char* name : {"a", "b", "c"}) writer.write(name, small);
  writer.write("large", large);
  writer.finish();
  size_t bytes = 0;
  for (const char* name : {"model-00001-of-00003", "model-00002-of-00003", "model-00003-of-00003"}) {
    bytes += std::filesystem::file_size(directory.path() / (std::string(name) + ".safetensors"));
  }
  EXPECT_EQ(writer.file_bytes(), bytes);
  EXPECT_EQ(SafetensorsFile(directory.path() / "model-00001-of-00003.safetensors").tensors().size(), 2u);
  const Checkpoint checkpoint(directory.path());
  EXPECT_TRUE(same(checkpoint.get("c"), small));
  EXPECT_TRUE(same(checkpoint.get("large"), large));
}

TEST(SafetensorsWriter, RefusesAFolderThatIsMissingAndFilesThatExist) {
  const TemporaryDirectory directory;
  const std::vector<TensorPlan> plans = {{"a", DType::kU8, {1}}};
  EXPECT_THAT([&] { SafetensorsWriter(directory.path() / "missing", plans); },
              ThrowsMessage<Error>(AllOf(HasSubstr("model-00001-of-00001.safetensors"), HasSubstr("No such file"))));
  const SafetensorsWriter first(directory.path(), plans);
  EXPECT_THAT([&] { SafetensorsWriter(directory.path(), plans); }, ThrowsMessage<Error>(HasSubstr("File exists")));
}

// A limit on the size of files acts like a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST(SafetensorsWriter, NoticesMissingSpaceBeforeAnythingIsWritten) {
  const TemporaryDirectory directory;
  const FileSizeLimit limit(10'000);
  EXPECT_THAT([&] { SafetensorsWriter(directory.path(), {{"a", DType::kU8, {20'000}}}); },
              ThrowsMessage<Error>(AllOf(HasSubstr("model-00001"), HasSubstr("cannot be written"), HasSubstr("free space"))));
}

TEST(SafetensorsWriter, NamesTheFileWhoseSpaceRunsOutWhileItIsWritten) {
  const TemporaryDirectory directory;
  const Tensor tensor = counting_bytes({20'000});
  SafetensorsWriter writer(directory.path(), {plan_of("a", tensor)});
  const FileSizeLimit limit(10'000);
  EXPECT_THAT([&] { writer.write("a", tensor); },
              ThrowsMessage<Error>(AllOf(HasSubstr("model-00001"), HasSubstr("cannot be written"))));
}

TEST(SafetensorsWriterDeathTest, RefusesToFinishWhileRowsAreMissing) {
  const TemporaryDirectory directory;
  SafetensorsWriter writer(directory.path(), {{"a", DType::kU8, {2, 3}}});
  writer.write("a", counting_bytes({1, 3}), 1);
  EXPECT_DEATH(writer.finish(), "not every tensor");
}

}  // namespace
}  // namespace skipper
