#include "tests/support/demo_engine.h"

#include <limits>

#include "cluster/cluster_topology.h"
#include "evaluation/eval_data.h"
#include "guard/reference_loader.h"
#include "model/model_config.h"
#include "processor/bpe_tokenizer.h"
#include "processor/image_decoder.h"
#include "processor/image_processor.h"
#include "tests/support/spawn_ranks.h"

namespace skipper {
namespace {

const std::filesystem::path kDemo = std::filesystem::path(SKIPPER_SOURCE_DIR) / "models/demo";
constexpr int64_t kMergedPatches = 4;
constexpr const char* kQuestionStart = "<|im_start|>user\n";
constexpr const char* kAnswerStart = "<|im_end|>\n<|im_start|>assistant\n";

const BpeTokenizer& demo_tokenizer() {
  static const BpeTokenizer tokenizer(kDemo);
  return tokenizer;
}

GenerationRequest request_for(const std::string& prompt) {
  GenerationRequest request;
  request.prompt_ids = demo_tokenizer().encode(prompt, SpecialTokens::kParse);
  request.max_new_tokens = 12;
  request.stop_token_ids = load_model_config(kDemo).eos_token_ids;
  return request;
}

std::vector<TokenClass> demo_token_classes(const ModelConfig& model) {
  std::vector<TokenClass> classes(static_cast<size_t>(model.vocab_size), TokenClass::kText);
  for (const int32_t id : demo_tokenizer().special_ids()) classes[static_cast<size_t>(id)] = TokenClass::kProtected;
  for (const char* vision : {"<|image_pad|>", "<|video_pad|>"}) {
    classes[static_cast<size_t>(demo_tokenizer().token_id(vision).value())] = TokenClass::kVision;
  }
  return classes;
}

std::vector<ExpertPolicy> policies_of_rank(const std::vector<DemoPolicy>& policies, const ExpertPlacement& placement, int rank) {
  std::vector<ExpertPolicy> result;
  for (const DemoPolicy& policy : policies) {
    ExpertAssignment assignment{.placement = placement, .slots = {}, .memory = ExpertMemory::kPerExpert};
    for (size_t layer = 0; layer < policy.formats.size(); ++layer) {
      const size_t num_slots = placement.experts_of(rank, static_cast<int>(layer)).size();
      assignment.slots.emplace_back(num_slots, AssignedExpert{.format = policy.formats[layer]});
    }
    result.push_back({policy.name, std::move(assignment), std::numeric_limits<uint32_t>::max()});
  }
  return result;
}

std::vector<PolicyTraits> traits_of(const std::vector<DemoPolicy>& policies) {
  std::vector<PolicyTraits> traits;
  for (const DemoPolicy& policy : policies) traits.push_back({.name = policy.name});
  return traits;
}

void run_rank(const DemoEngineOptions& options, Communicator& control, Communicator& data,
              const std::function<void(DemoEngine&)>& drive) {
  const ModelConfig config = load_model_config(kDemo);
  const ClusterTopology topology(std::vector<int>(static_cast<size_t>(options.num_ranks), 0));
  LevelTable levels = unskipped_levels(config.num_moe_layers());
  levels.levels.insert(levels.levels.end(), options.operating_points.begin(), options.operating_points.end());
  const ExpertPlacement placement = ExpertPlacement::contiguous({.num_moe_layers = config.num_moe_layers(),
                                                                 .num_experts = static_cast<int>(config.moe.num_experts),
                                                                 .world_size = options.num_ranks});
  std::vector<ExpertPolicy> policies = policies_of_rank(options.policies, placement, control.rank());
  MultimodalModel model(kDemo, config, ParallelContext{data, topology, levels},
                        {options.engine.max_tokens_per_step, options.engine.max_logit_rows},
                        {.formats = options.weights,
                         .assignment = policies.empty() ? std::nullopt : std::optional(policies.front().assignment)});
  if (options.prepare_model) options.prepare_model(control.rank(), model);
  if (options.routing_observer) {
    model.set_routing_observer([&](const MoeLayerConfig&, const TokenPolicies&, const Routing&, const Routing& kept) {
      options.routing_observer(control.rank(), kept);
    });
  }
  KvCache cache(config, {options.engine.kv_blocks_per_rank, options.engine.kv_block_size});
  ModelRunner runner(model, cache, options.engine, demo_token_classes(config));
  RequestQueue queue(options.engine.queue_capacity);
  HealthMonitor health(std::chrono::seconds(60));
  std::optional<ReferenceLoader> reference_loader;
  std::unique_ptr<ReferenceExperts> reference;
  if (options.guard.is_on()) {
    reference_loader.emplace(options.guard, kDemo, config, options.weights);
    reference = reference_loader->load(model.expert_store(), ThreadPool::caller_only());
  }
  std::unique_ptr<ExpertStager> stager;
  if (!policies.empty()) {
    StagingSource source{kDemo, options.weights, model};
    source.prepare = [&](const ExpertPolicy& policy) {
      if (reference) reference->learn(reference_loader->measure(policy.assignment.slots_of_rank(control.rank()), *reference));
    };
    stager = std::make_unique<ExpertStager>(source, std::move(policies));
  }
  EngineParts parts{control, data, runner, model, queue, health, levels};
  parts.policies = {stager.get(), traits_of(options.policies), 0};
  parts.gate = options.gate;
  parts.guard = {options.guard, reference.get(), "demo"};
  Engine engine(options.engine, ClusterConfig(), parts, nullptr);
  if (control.rank() != 0) {
    for (int phase = 0; phase < options.num_phases; ++phase) engine.run();
    return;
  }
  RequestDriver driver(engine, queue, static_cast<size_t>(options.engine.queue_capacity));
  DemoEngine demo{engine, queue, driver, model};
  for (int phase = 0; phase < options.num_phases; ++phase) {
    drive(demo);
    engine.finish();
  }
}

}  // namespace

EngineConfig demo_engine_config() {
  EngineConfig config;
  config.max_tokens_per_step = 128;
  config.max_sequences_per_rank = 16;
  config.max_logit_rows = 128;
  config.kv_blocks_per_rank = 256;
  config.max_model_len = 1024;
  return config;
}

void with_demo_engine(const DemoEngineOptions& options, const std::function<void(DemoEngine&)>& drive) {
  spawn_engine_ranks(options.num_ranks, [&](Communicator& control, Communicator& data) {
    run_rank(options, control, data, drive);
  });
}

GenerationRequest demo_text_request(const std::string& question) {
  return request_for(kQuestionStart + question + kAnswerStart);
}

GenerationRequest demo_image_request(const std::string& image_name, const std::string& question) {
  const std::string file = read_file(kDemo / "calibration/images" / image_name);
  const std::vector<uint8_t> bytes(file.begin(), file.end());
  ImagePatches patches = make_image_patches(decode_image(bytes, ImageLimits(), "image"),
                                            read_image_processor_config(kDemo / "preprocessor_config.json"), "image");
  std::string placeholders;
  for (int64_t i = 0; i < patches.num_patches() / kMergedPatches; ++i) placeholders += "<|image_pad|>";
  GenerationRequest request =
      request_for(kQuestionStart + ("<|vision_start|>" + placeholders + "<|vision_end|>") + question + kAnswerStart);
  request.images.push_back(std::move(patches));
  return request;
}

OperatingPoint demo_operating_point(float tau_text, float tau_vision) {
  const auto num_layers = static_cast<size_t>(load_model_config(kDemo).num_moe_layers());
  OperatingPoint point;
  for (auto& alpha : point.alpha) alpha.assign(num_layers, 1.0f / static_cast<float>(num_layers));
  point.tau = {tau_text, tau_vision};
  return point;
}

}  // namespace skipper
