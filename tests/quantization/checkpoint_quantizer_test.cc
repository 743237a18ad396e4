#include "quantization/checkpoint_quantizer.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/json_fields.h"
#include "model/checkpoint_reader.h"
#include "model/weight_loader.h"
#include "tests/model/prompt_fixture.h"
#include "tests/quantization/quantized_copy.h"

namespace skipper {
namespace {


std::vector<float> values(const Tensor& tensor) {
  const std::span<const float> span = tensor.span<float>();
  return {span.begin(), span.end()};
}

// What a matrix of the original becomes when it is packed directly.
std::vector<float> rounded(const Tensor& w, const WeightFormat& format) { return values(unpack(pack(w, format))); }

Tensor transposed(const Tensor& w) {
  Tensor result = Tensor::empty({w.dim(1), w.dim(0)}, DType::kF32);
  for (int64_t row = 0; row < w.dim(0); ++row) {
    for (int64_t column = 0; column < w.dim(1); ++column) {
      result.row<float>(column)[row] = static_cast<float>(w.row<bf16>(row)[column]);
    }
  }
  return result;
}

// Gate and up [I, H] and down [H, I] of an expert, read from the definition of both layouts.
struct OriginalExpert {
  Tensor gate, up, down;
};

OriginalExpert original_expert(const Checkpoint& checkpoint, const ModelConfig& config, int64_t layer, int64_t expert) {
  const std::string prefix = config.text_prefix + "layers." + std::to_string(layer) + ".mlp.experts.";
  if (config.moe.layout == ExpertLayout::kPerExpert) {
    const std::string name = prefix + std::to_string(expert);
    return {checkpoint.get(name + ".gate_proj.weight"), checkpoint.get(name + ".up_proj.weight"),
            checkpoint.get(name + ".down_proj.weight")};
  }
  const Tensor both = transposed(checkpoint.get(prefix + "gate_up_proj").at(expert));
  const int64_t width = config.moe.intermediate_size;
  return {both.slice(0, width), both.slice(width, 2 * width), transposed(checkpoint.get(prefix + "down_proj").at(expert))};
}

// Rows of gate (part 0) or up (part 1) from panels in turn.
std::vector<float> part_of_panels(const PackedMatrix& gate_up, int64_t part, int64_t num_rows) {
  const Tensor all = unpack(gate_up);
  std::vector<float> result;
  for (int64_t row = 0; row < num_rows; ++row) {
    const float* source = all.row<float>((2 * (row / kPanelRows) + part) * kPanelRows + row % kPanelRows);
    result.insert(result.end(), source, source + all.dim(1));
  }
  return result;
}

void expect_expert(const QuantizedCopy& copy, const std::filesystem::path& model, int64_t layer, int64_t expert) {
  const ModelConfig config = load_model_config(copy.path());
  const Checkpoint packed(copy.path()), original(model);
  const WeightFormat& format = config.quantization->of_expert(layer, expert);
  const OriginalExpert weights = original_expert(original, config, layer, expert);
  const std::string prefix = expert_prefix(config.text_prefix, layer, expert);
  const int64_t width = config.moe.intermediate_size, hidden_size = config.hidden_size;
  const PackedMatrix gate_up = read_packed(packed, prefix + "gate_up", format, gate_up_shape(width, hidden_size));
  EXPECT_EQ(part_of_panels(gate_up, 0, width), rounded(weights.gate, format)) << prefix;
  EXPECT_EQ(part_of_panels(gate_up, 1, width), rounded(weights.up, format)) << prefix;
  const PackedMatrix down = read_packed(packed, prefix + "down", format, {hidden_size, width});
  EXPECT_EQ(values(unpack(down)), rounded(weights.down, format)) << prefix;
}

void expect_dense(const QuantizedCopy& copy, const std::filesystem::path& model, const std::string& name,
                  const std::string& original_name) {
  const WeightFormat format = *load_model_config(copy.path()).quantization->dense;
  const Checkpoint packed(copy.path()), original(model);
  const Tensor weight = original.get(original_name);
  EXPECT_EQ(values(unpack(read_packed(packed, name, format, {weight.dim(0), weight.dim(1)}))), rounded(weight, format)) << name;
  EXPECT_FALSE(packed.has(name + ".weight")) << name;
}

class EveryFormat : public testing::TestWithParam<std::string> {};

TEST_P(EveryFormat, HoldsWhatPackingPerExpertTensorsDirectlyGives) {
  const std::filesystem::path model = model_fixture("tiny_qwen3_moe");
  const QuantizedCopy copy(model, GetParam(), GetParam());
  for (const int64_t layer : {0, 2}) {
    for (int64_t expert = 0; expert < 7; ++expert) expect_expert(copy, model, layer, expert);
  }
  for (const char* matrix : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
    const std::string name = std::string("model.layers.1.self_attn.") + matrix;
    expect_dense(copy, model, name, name + ".weight");
  }
  for (const char* matrix : {"gate_proj", "up_proj", "down_proj"}) {
    const std::string name = std::string("model.layers.1.mlp.") + matrix;
    expect_dense(copy, model, name, name + ".weight");
  }
  expect_dense(copy, model, "lm_head", "lm_head.weight");
}

std::vector<std::string> file_formats() {
  std::vector<std::string> names = weight_format_names();
  std::erase(names, "f32");
  return names;
}

INSTANTIATE_TEST_SUITE_P(Formats, EveryFormat, testing::ValuesIn(file_formats()), [](const auto& info) {
  std::string name = info.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

TEST(CheckpointQuantizer, TurnsFusedExpertsAndPacksATiedHeadBesideItsTable) {
  const QuantizedCopy copy(demo_model(), "int4a-g32", "int8-g64");
  for (const int64_t expert : {0, 13, 31}) expect_expert(copy, demo_model(), 3, expert);
  expect_dense(copy, demo_model(), "lm_head", "model.language_model.embed_tokens.weight");
  expect_dense(copy, demo_model(), "model.language_model.layers.5.self_attn.o_proj",
               "model.language_model.layers.5.self_attn.o_proj.weight");
  EXPECT_FALSE(Checkpoint(copy.path()).has("model.language_model.layers.3.mlp.experts.gate_up_proj"));
}

TEST(CheckpointQuantizer, CopiesEveryOtherTensorByteForByte) {
  const QuantizedCopy copy(demo_model(), "int8-g128", "int8-g32");
  const Checkpoint packed(copy.path()), original(demo_model());
  size_t copied = 0;
  for (const std::string& name : original.names()) {
    if (!packed.has(name)) {
      EXPECT_TRUE(name.find(".mlp.experts.") != std::string::npos || name.find("self_attn.") != std::string::npos) << name;
      continue;
    }
    ++copied;
    const Tensor expected = original.get(name), found = packed.get(name, expected.shape());
    ASSERT_EQ(found.dtype(), expected.dtype()) << name;
    EXPECT_EQ(std::memcmp(found.bytes(), expected.bytes(), expected.num_bytes()), 0) << name;
  }
  EXPECT_GT(copied, 50u);
  for (const char* kept : {"model.language_model.embed_tokens.weight", "model.language_model.layers.0.mlp.gate.weight",
                           "model.visual.blocks.0.attn.qkv.weight", "model.language_model.norm.weight"}) {
    EXPECT_TRUE(packed.has(kept)) << kept;
  }
}

TEST(CheckpointQuantizer, LeavesDenseWeightsAloneUnlessAsked) {
  const QuantizedCopy copy(model_fixture("tiny_qwen3_moe"), "int3a-g32", "");
  const Checkpoint packed(copy.path());
  EXPECT_TRUE(packed.has("model.layers.1.mlp.gate_proj.weight"));
  EXPECT_TRUE(packed.has("lm_head.weight"));
  EXPECT_FALSE(packed.has("lm_head.codes"));
  EXPECT_EQ(copy.report().dense.num_weights, 0);
}

TEST(CheckpointQuantizer, KeepsBiasesOfPackedProjections) {
  const QuantizedCopy copy(model_fixture("tiny_qwen3_moe"), "int8-g32", "int8-g32");
  EXPECT_TRUE(Checkpoint(copy.path()).has("model.layers.0.self_attn.q_proj.bias"));
}

// A rank alone.
struct LoadedCopy {
  LoadedCopy(const Checkpoint& checkpoint, const ModelConfig& config, WeightResidence residence)
      : formats{.residence = residence},
        source{checkpoint, config, formats},
        placement(ExpertPlacement::contiguous({config.num_moe_layers(), static_cast<int>(config.moe.num_experts), 1})),
        store(expert_store_config(source, placement, 0)) {
    LoadQueue queue;
    dense = load_dense_weights(source, queue);
    load_experts(source, store, queue);
    queue.run(ThreadPool::caller_only(), nullptr);
    store.freeze();
    embedding_bytes = settle_mapping(source, dense.weights.embedding);
  }
  size_t mapped_bytes() const { return embedding_bytes + dense.mapped_bytes + store.mapped_bytes(); }

  WeightConfig formats;
  WeightSource source;
  ExpertPlacement placement;
  ExpertStore store;
  DenseWeights dense;
  size_t embedding_bytes = 0;
};

TEST(QuantizedCopyInMemory, LeavesOnlyTheEmbeddingMapped) {
  const QuantizedCopy copy(demo_model(), "int8-g64", "int8-g64");
  const ModelConfig config = load_model_config(copy.path());
  const Checkpoint checkpoint(copy.path());
  const LoadedCopy loaded(checkpoint, config, WeightResidence::kMemory);
  EXPECT_EQ(loaded.mapped_bytes(), loaded.embedding_bytes);
  EXPECT_FALSE(checkpoint.holds(loaded.store.down(0)[0].codes));
  EXPECT_FALSE(checkpoint.holds(loaded.dense.weights.head.weight.codes));
  EXPECT_LT(checkpoint.resident_bytes(), loaded.embedding_bytes + loaded.store.num_bytes() / 2);
}

TEST(QuantizedCopyMapped, IsUsedInPlaceAndResidentWithoutACopy) {
  const QuantizedCopy copy(demo_model(), "int8-g64", "int8-g64");
  const ModelConfig config = load_model_config(copy.path());
  const Checkpoint checkpoint(copy.path());
  const LoadedCopy loaded(checkpoint, config, WeightResidence::kMapped);
  EXPECT_EQ(loaded.store.mapped_bytes(), loaded.store.num_bytes());
  EXPECT_GT(loaded.dense.mapped_bytes, loaded.dense.weights.head.weight.num_bytes());
  EXPECT_LT(loaded.dense.mapped_bytes, loaded.dense.packed_bytes) << "the vision tower is packed at load";
  EXPECT_TRUE(checkpoint.holds(loaded.store.gate_up(0)[0].codes));
  EXPECT_TRUE(checkpoint.holds(loaded.store.down(0)[0].scales));
  EXPECT_TRUE(checkpoint.holds(loaded.dense.weights.head.weight.codes));
  EXPECT_GE(checkpoint.resident_bytes(), loaded.mapped_bytes());
}

TEST(CheckpointQuantizer, CarriesTokenizerAndTemplatesOver) {
  const QuantizedCopy copy(demo_model(), "int4-g128", "");
  for (const char* name : {"tokenizer.json", "chat_template.jinja", "preprocessor_config.json", "generation_config.json"}) {
    EXPECT_EQ(std::filesystem::file_size(copy.path() / name), std::filesystem::file_size(demo_model() / name)) << name;
  }
  EXPECT_FALSE(std::filesystem::exists(copy.path() / "model-00002-of-00003.safetensors"));
}

TEST(CheckpointQuantizer, NamesFormatsAndOriginalInTheConfigAndIsAnotherModel) {
  const QuantizedCopy copy(demo_model(), "int4a-g64", "int8-g64");
  const ModelConfig original = load_model_config(demo_model()), quantized = load_model_config(copy.path());
  ASSERT_TRUE(quantized.quantization.has_value());
  EXPECT_EQ(quantized.quantization->source_fingerprint, original.fingerprint);
  EXPECT_EQ(name_of(quantized.quantization->experts), "int4a-g64");
  EXPECT_EQ(name_of(quantized.quantization->dense.value()), "int8-g64");
  EXPECT_NE(quantized.fingerprint, original.fingerprint);
  nlohmann::json config = read_json_file(copy.path() / "config.json");
  config.erase(kQuantizationKey);
  EXPECT_EQ(config, read_json_file(demo_model() / "config.json"));
}

std::string all_bytes(const std::filesystem::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    std::ifstream file(entry.path(), std::ios::binary);
    files[entry.path().filename()] = {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  std::string bytes;
  for (const auto& [name, content] : files) bytes += name + content;
  return bytes;
}

TEST(CheckpointQuantizer, WritesTheSameBytesWithAnyNumberOfThreads) {
  const std::filesystem::path model = model_fixture("tiny_qwen3_moe");
  const QuantizedCopy alone(model, "int2a-g32", "int4-g64", 1), together(model, "int2a-g32", "int4-g64", 3);
  EXPECT_TRUE(all_bytes(alone.path()) == all_bytes(together.path()));
  EXPECT_EQ(alone.report().experts.squared_error, together.report().experts.squared_error);
}

TEST(CheckpointQuantizer, ReportsSizesBitsAndErrors) {
  const QuantizedCopy copy(demo_model(), "int4a-g32", "int8-g32");
  const QuantizationReport& report = copy.report();
  EXPECT_EQ(report.experts.num_weights, 6 * 32 * 3 * 256 * 96);
  EXPECT_EQ(report.dense.num_weights, 6 * (2 * 512 + 2 * 128) * 256 + 4096 * 256);
  // 4 bits, a scale of 16 and a zero point of 8 for 32 weights; no padding in this model.
  EXPECT_DOUBLE_EQ(report.experts.bits_per_weight(), 4.75);
  EXPECT_DOUBLE_EQ(report.dense.bits_per_weight(), 8.5);
  // A range of about 4 standard deviations in 15 steps, each with an error of 1/√12 of a step.
  EXPECT_NEAR(report.experts.relative_error(), 0.08, 0.02);
  EXPECT_LT(report.dense.relative_error(), 0.008);
  EXPECT_LT(report.bytes_after, report.bytes_before);
}

TEST(CheckpointQuantizer, ShowsProgressInBytesUpToTheEnd) {
  const TemporaryDirectory directory;
  std::vector<size_t> done;
  size_t total = 0;
  const auto progress = [&](size_t now, size_t of) {
    done.push_back(now);
    total = of;
  };
  quantize_checkpoint(request_for(demo_model(), directory.path() / "out", "int8-g64", "int8-g64"), ThreadPool::caller_only(),
                      progress);
  EXPECT_TRUE(std::ranges::is_sorted(done));
  EXPECT_EQ(done.back(), total);
  EXPECT_GT(done.size(), 7u);
}

}  // namespace
}  // namespace skipper
