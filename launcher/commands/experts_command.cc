#include "launcher/commands/experts_command.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <limits>

#include "base/error.h"
#include "evaluation/calibration_data.h"
#include "evaluation/expert_inputs.h"
#include "evaluation/expert_rater.h"
#include "evaluation/expert_ratings.h"
#include "evaluation/frontier_file.h"
#include "launcher/command_options.h"
#include "launcher/progress_line.h"
#include "launcher/rank_process.h"
#include "tensor/safetensors.h"

namespace skipper {
namespace {

constexpr int64_t kRowsPerLayer = 512;
constexpr int64_t kDefaultSamples = 96;
constexpr size_t kInFlight = 32;

// All tokens pass the last layer, too: its experts need rows as those of the others.
ServerConfig config_from(const CommandLine& line) {
  ServerConfig config = scoring_config_from(line);
  config.engine.max_logit_rows = config.engine.max_tokens_per_step;
  return config;
}

CalibrationData open_data(const CommandLine& line, const RankProcess& process) {
  if (process.world_size() > 1) {
    throw Error("'skipper experts' compares all experts with one another; run it on 1 rank, not on " +
                std::to_string(process.world_size()));
  }
  if (process.model_config().num_moe_layers() == 0) {
    throw Error(line.model + ": has no expert layers; there is nothing to compare");
  }
  require_writable(line.out);
  return load_calibration_data(line.data, line.limit < 0 ? kDefaultSamples : line.limit, process.processor().tokenizer());
}

void run_samples(const CalibrationData& data, RankProcess& process, ExpertInputs& inputs) {
  process.model().set_activation_observer([&](const ObservedRows& rows, Stream&) { inputs.add(rows); });
  process.model().set_routing_observer(
      [&](const MoeLayerConfig& layer, const TokenPolicies& policies, const Routing& routed, const Routing&) {
        inputs.add_shares(layer.moe_layer, policies, routed);
      });
  Engine& engine = process.start_engine(nullptr);
  RequestDriver driver(engine, process.queue(), kInFlight);
  const CalibrationSettings settings{process.model_config().eos_token_ids, process.config().engine.max_model_len};
  run_calibration(data, settings, process.processor(), driver, ProgressLine("samples"));
  engine.finish();
  process.model().set_activation_observer(nullptr);
  process.model().set_routing_observer(nullptr);
}

Tensor as_floats(const Tensor& tensor) {
  Tensor floats = Tensor::empty(tensor.shape(), DType::kF32);
  float* out = floats.data<float>();
  const auto copy = [&](const auto* values) {
    std::transform(values, values + tensor.num_elements(), out, [](auto value) { return static_cast<float>(value); });
  };
  if (tensor.dtype() == DType::kBF16) {
    copy(tensor.data<bf16>());
  } else {
    copy(tensor.data<float>());
  }
  return floats;
}

// What the checkpoint has of a layer with experts.
RatedLayer read_layer(const Checkpoint& checkpoint, const ModelConfig& model, int64_t layer) {
  const std::string prefix = model.text_prefix + "layers." + std::to_string(layer) + ".";
  return {.moe_layer = 0,
          .norm = as_floats(checkpoint.get(prefix + "post_attention_layernorm.weight", {model.hidden_size})),
          .router = as_floats(checkpoint.get(prefix + "mlp.gate.weight", {model.moe.num_experts, model.hidden_size}))};
}

void append(std::vector<float>& all, const std::vector<float>& more) { all.insert(all.end(), more.begin(), more.end()); }

void rate_layers(const CommandLine& line, RankProcess& process, const ExpertInputs& inputs, ExpertRatings& ratings) {
  const ModelConfig& model = process.model_config();
  const Checkpoint checkpoint(line.model);
  Stream stream;
  const ExpertRater rater(process.model().expert_store(), stream);
  ProgressLine show_progress("comparing experts, layers");
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
    if (!model.is_moe_layer(layer)) continue;
    RatedLayer rated = read_layer(checkpoint, model, layer);
    rated.moe_layer = ratings.num_moe_layers++;
    const LayerRatings found = rater.rate(rated, inputs.rows(rated.moe_layer));
    append(ratings.capacity, found.capacity);
    append(ratings.response, found.response);
    append(ratings.similarity, found.similarity);
    show_progress(static_cast<size_t>(ratings.num_moe_layers), static_cast<size_t>(model.num_moe_layers()));
  }
}

// A class without tokens would have thresholds made of nothing.
void add_second_shares(const CommandLine& line, const ModelConfig& model, const ExpertInputs& inputs, ExpertRatings& ratings) {
  for (size_t c = 0; c < kNumSkippableClasses; ++c) {
    const TokenClass token_class{static_cast<uint8_t>(c)};
    ratings.second_share[c] = inputs.second_shares(token_class);
    const bool is_there = token_class == TokenClass::kText || model.vision.has_value();
    if (!is_there) ratings.second_share[c].assign(static_cast<size_t>(model.num_moe_layers()), 0.0f);
    if (ratings.second_share[c].empty() && model.moe.top_k > 1) {
      throw InvalidFile(line.data + ": holds no " + std::string(kTokenClassNames[c]) +
                        " token; add samples that do, such as a vqa.jsonl with pictures");
    }
  }
}

std::string name_of_data(const std::filesystem::path& path) {
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

void print_report(const ExpertRatings& ratings) {
  const auto spread = [](const std::vector<float>& values) {
    const auto [least, most] = std::ranges::minmax_element(values);
    return std::pair(static_cast<double>(*least), static_cast<double>(*most));
  };
  std::printf("%lld rows of each of %d layers, %d experts\n", static_cast<long long>(ratings.num_rows), ratings.num_moe_layers,
              ratings.num_experts);
  for (const auto& [name, values] : {std::pair{"capacity", &ratings.capacity}, std::pair{"response", &ratings.response},
                                     std::pair{"similarity", &ratings.similarity}}) {
    const auto [least, most] = spread(*values);
    std::printf("%s: %.3g to %.3g times the layer's mean\n", name, least, most);
  }
}

}  // namespace

int run_experts(const CommandLine& line) {
  RankProcess process([&] { return config_from(line); }, rank_options_from(line));
  const CalibrationData data = open_data(line, process);
  process.load();
  const ModelConfig& model = process.model_config();
  ExpertInputs inputs(model.num_moe_layers(), kRowsPerLayer);
  run_samples(data, process, inputs);
  ExpertRatings ratings{.model_fingerprint = model.fingerprint,
                        .data = name_of_data(data.path),
                        .num_rows = inputs.rows(0).dim(0),
                        .num_experts = static_cast<int>(model.moe.num_experts)};
  add_second_shares(line, model, inputs, ratings);
  rate_layers(line, process, inputs, ratings);
  write_file_atomically(line.out, to_json(ratings));
  print_report(ratings);
  return 0;
}

}  // namespace skipper
