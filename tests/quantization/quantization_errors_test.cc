// What quantize_checkpoint refuses, and that nothing is left of the output then.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>
#include <limits>
#include <nlohmann/json.hpp>

#include "tensor/safetensors_writer.h"
#include "tests/model/edited_checkpoint.h"
#include "tests/model/prompt_fixture.h"
#include "tests/quantization/quantized_copy.h"

namespace skipper {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Quantises into a fresh directory, expects an error and that the directory stays empty.
class Attempt {
 public:
  void run(const fs::path& model, const QuantizationProgress& progress = ignore_progress) {
    ThreadPool workers(2);
    quantize_checkpoint(request_for(model, parent_.path() / "out", "int4a-g32", "int8-g32"), workers, progress);
  }
  bool left_nothing() const { return fs::is_empty(parent_.path()); }

 private:
  TemporaryDirectory parent_;
};

// The tiny model with its weights written anew after a change.
class ChangedWeights {
 public:
  explicit ChangedWeights(const std::function<void(std::map<std::string, Tensor>&)>& change)
      : checkpoint_(model_fixture("tiny_qwen3_moe")) {
    std::map<std::string, Tensor> tensors;
    const Checkpoint original(model_fixture("tiny_qwen3_moe"));
    for (const std::string& name : original.names()) {
      const Tensor view = original.get(name);
      tensors[name] = Tensor::empty(view.shape(), view.dtype());
      std::memcpy(tensors[name].bytes(), view.bytes(), view.num_bytes());
    }
    change(tensors);
    checkpoint_.remove("model.safetensors");
    std::vector<TensorPlan> plans;
    for (const auto& [name, tensor] : tensors) plans.push_back({name, tensor.dtype(), tensor.shape()});
    SafetensorsWriter writer(checkpoint_.path(), plans);
    for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
    writer.finish();
  }
  const fs::path& path() const { return checkpoint_.path(); }

 private:
  EditedCheckpoint checkpoint_;
};

TEST(QuantizationErrors, NamesTheTensorThatHoldsNan) {
  const ChangedWeights model([](auto& tensors) {
    tensors["model.layers.2.mlp.experts.5.up_proj.weight"].template row<bf16>(19)[7] =
        bf16(std::numeric_limits<float>::quiet_NaN());
  });
  Attempt attempt;
  EXPECT_THAT([&] { attempt.run(model.path()); },
              ThrowsMessage<InvalidFile>(AllOf(HasSubstr("model.layers.2.mlp.experts.5.up_proj.weight holds NaN"),
                                               HasSubstr("output 19, input 7"))));
  EXPECT_TRUE(attempt.left_nothing());
}

TEST(QuantizationErrors, NamesTheTensorThatHoldsAnInfiniteWeight) {
  const ChangedWeights model([](auto& tensors) {
    tensors["lm_head.weight"].template row<bf16>(255)[31] = bf16(-std::numeric_limits<float>::infinity());
  });
  Attempt attempt;
  EXPECT_THAT([&] { attempt.run(model.path()); },
              ThrowsMessage<InvalidFile>(AllOf(HasSubstr("lm_head.weight holds an infinite value"),
                                               HasSubstr("output 255, input 31"))));
  EXPECT_TRUE(attempt.left_nothing());
}

TEST(QuantizationErrors, RefusesAQuantisedModelAndNamesItsOriginal) {
  const QuantizedCopy copy(model_fixture("tiny_qwen3_moe"), "int8-g32", "");
  const std::string original = load_model_config(model_fixture("tiny_qwen3_moe")).fingerprint;
  Attempt attempt;
  EXPECT_THAT([&] { attempt.run(copy.path()); },
              ThrowsMessage<InvalidFile>(AllOf(HasSubstr("is quantised already (experts int8-g32)"), HasSubstr(original))));
  EXPECT_TRUE(attempt.left_nothing());
}

TEST(QuantizationErrors, RefusesAnotherProgramsQuantisation) {
  EditedCheckpoint model(model_fixture("tiny_qwen3_moe"));
  model.edit("config.json", [](nlohmann::json& config) { config["quantization_config"] = {{"quant_method", "awq"}}; });
  Attempt attempt;
  EXPECT_THAT([&] { attempt.run(model.path()); }, ThrowsMessage<InvalidFile>(HasSubstr("'awq' is not supported")));
  EXPECT_TRUE(attempt.left_nothing());
}

TEST(QuantizationErrors, NamesATensorThatIsMissing) {
  const ChangedWeights model([](auto& tensors) { tensors.erase("model.layers.0.mlp.experts.6.down_proj.weight"); });
  Attempt attempt;
  EXPECT_THAT([&] { attempt.run(model.path()); },
              ThrowsMessage<InvalidFile>(HasSubstr("model.layers.0.mlp.experts.6.down_proj.weight")));
  EXPECT_TRUE(attempt.left_nothing());
}

TEST(QuantizationErrors, RefusesATensorWithTheNameOfAPackedOne) {
  const ChangedWeights model([](auto& tensors) { tensors["lm_head.codes"] = Tensor::zeros({1}, DType::kU8); });
  Attempt attempt;
  EXPECT_THAT([&] { attempt.run(model.path()); },
              ThrowsMessage<InvalidFile>(HasSubstr("lm_head.codes has the name that a quantised matrix takes")));
  EXPECT_TRUE(attempt.left_nothing());
}

TEST(QuantizationErrors, RefusesItsInputAsOutput) {
  const fs::path model = model_fixture("tiny_qwen3_moe");
  EXPECT_THAT([&] { quantize_checkpoint(request_for(model, model, "int8-g32", ""), ThreadPool::caller_only(), ignore_progress); },
              ThrowsMessage<Error>(HasSubstr("is not empty; name a new directory")));
}

TEST(QuantizationErrors, LeavesNothingWhenItIsStopped) {
  Attempt attempt;
  const auto stop = [](size_t done, size_t) {
    if (done > 0) throw Cancelled("stopped");
  };
  EXPECT_THROW(attempt.run(model_fixture("tiny_qwen3_moe"), stop), Cancelled);
  EXPECT_TRUE(attempt.left_nothing());
}

TEST(QuantizationErrors, LeavesNothingWhenTheDiskFillsUp) {
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  // A limit on the size of files acts like a full disk; it comes when the space was checked already.
  const rlimit limit{20'000, before.rlim_max};
  Attempt attempt;
  const auto fill = [&](size_t, size_t) { setrlimit(RLIMIT_FSIZE, &limit); };
  EXPECT_THAT([&] { attempt.run(model_fixture("tiny_qwen3_moe"), fill); },
              ThrowsMessage<Error>(AllOf(HasSubstr("00001-of-00001.safetensors: cannot be written"), HasSubstr("free space"))));
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(attempt.left_nothing());
}

}  // namespace
}  // namespace skipper
