#include "launcher/commands/plan_command.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <limits>

#include "base/error.h"
#include "configs/server_config.h"
#include "evaluation/frontier_file.h"
#include "launcher/plan_verifier.h"
#include "launcher/progress_line.h"
#include "planning/analytic_profile.h"
#include "planning/memory_size.h"
#include "planning/plan_assignment.h"
#include "planning/plan_report.h"
#include "planning/plan_solver.h"
#include "planning/rank_memory.h"
#include "processor/image_processor.h"
#include "tensor/device_runtime.h"

namespace skipper {
namespace {

constexpr int kMaxAdvisedRanks = 4096;
constexpr size_t kMegabyte = 1'000'000;
// What an expert cache for those on disk holds at least: those of a token and those of the next layer.
constexpr size_t kCachedLayers = 2;

// Formats for which a loss is known without measuring.
std::vector<WeightFormat> analytic_formats() {
  return {{WeightKind::kInt8, 64}, {WeightKind::kInt4Asymmetric, 32}, {WeightKind::kInt4, 32}, {WeightKind::kInt4, 64},
          {WeightKind::kInt3Asymmetric, 32}, {WeightKind::kInt2Asymmetric, 32}};
}

bool uses_gpus(const CommandLine& line) {
  if (line.device == "cuda") return true;
  return line.device != "cpu" && num_gpus() > 0;
}

// One size for all ranks, or one for each.
std::vector<size_t> sizes_of(const std::string& text, const std::string& flag, size_t num_ranks) {
  try {
    std::vector<size_t> sizes = parse_memory_sizes(text, "flag --" + flag);
    if (sizes.size() == 1) sizes.resize(num_ranks, sizes[0]);
    if (sizes.size() == num_ranks) return sizes;
    throw UsageError("flag --" + flag + ": " + std::to_string(sizes.size()) + " sizes for " + std::to_string(num_ranks) +
                     " ranks; give one for all, or one for each");
  } catch (const InvalidRequest& error) {
    throw UsageError(error.what());
  }
}

size_t disk_bytes(const std::string& directory, size_t num_ranks) {
  std::error_code status;
  const auto space = std::filesystem::space(directory, status);
  if (status || !std::filesystem::is_directory(directory)) {
    throw InvalidFile(directory + ": is no directory whose space can be asked for; give --disk a directory that exists");
  }
  return static_cast<size_t>(space.available) / num_ranks;
}

class Planner {
 public:
  explicit Planner(const CommandLine& line)
      : line_(line),
        num_ranks_(static_cast<size_t>(std::max(line.ranks, 1))),
        has_gpus_(uses_gpus(line)),
        memory_(sizes_of(line.memory, "memory", num_ranks_)),
        config_(load_server_config(line.config)),
        model_(load_model_config(line.model)),
        profile_(read_profile()) {
    if (!has_gpus_ && !line.host_memory.empty()) {
      throw UsageError("flag --host_memory: ranks on CPUs have no memory but --memory; leave it out, or use --device cuda");
    }
    host_memory_ = line.host_memory.empty() ? std::vector<size_t>() : sizes_of(line.host_memory, "host_memory", num_ranks_);
    require_writable(line.out);
    check_model();
  }

  int run() {
    const PlanProblem problem = make_problem(config_.engine.kv_blocks_per_rank, memory_);
    if (const auto shortage = find_shortage(problem)) {
      std::fprintf(stderr, "skipper: error: %s\n", shortage_line(*shortage, advise(*shortage)).c_str());
      return 1;
    }
    ExpertPlan plan = make_plan(problem);
    plan.origin.kv_tokens_per_rank = config_.engine.kv_tokens_per_rank();
    if (!line_.verify.empty()) plan = verified(problem, std::move(plan));
    if (line_.max_loss >= 0.0) plan.origin.target = "max_loss";
    if (line_.hashes) add_hashes(plan);
    write_file_atomically(line_.out, to_json(plan));
    std::fputs(plan_report(plan, problem).c_str(), stdout);
    return 0;
  }

 private:
  // With kv_tokens_per_rank, which a plan made anew has not.
  ExpertPlan verified(const PlanProblem& problem, ExpertPlan plan) const {
    const int64_t kv_tokens = plan.origin.kv_tokens_per_rank;
    plan = PlanVerifier(line_).choose(problem, std::move(plan));
    plan.origin.kv_tokens_per_rank = kv_tokens;
    return plan;
  }

  void add_hashes(ExpertPlan& plan) const {
    ThreadPool workers(std::max(line_.threads, 1));
    skipper::add_hashes(plan, line_.model, model_, workers, ProgressLine("hashing experts, layers"));
  }

  PrecisionProfile read_profile() const {
    if (line_.profile.empty()) return analytic_profile(model_, analytic_formats());
    return load_precision_profile(line_.profile, {model_.fingerprint, model_.num_moe_layers(),
                                                  static_cast<int>(model_.moe.num_experts)});
  }

  void check_model() const {
    if (model_.num_moe_layers() == 0) throw InvalidFile(line_.model + ": has no experts to plan");
    if (config_.engine.kv_blocks_per_rank == 0) {
      throw Error("engine.kv_blocks_per_rank: 0 leaves the KV cache what experts leave, but a plan gives experts what the KV "
                  "cache leaves; give a number");
    }
    if (config_.weights.experts) {
      throw Error("weights.experts: " + name_of(*config_.weights.experts) +
                  " is one format for all experts, which the plan decides; leave the setting out");
    }
  }

  RankSettings settings(int64_t kv_blocks, size_t num_ranks) const {
    const EngineConfig& engine = config_.engine;
    RankSettings settings{.weights = config_.weights, .dispatch = config_.dispatch};
    settings.limits = {engine.max_tokens_per_step, engine.max_logit_rows, engine.max_sequences_per_rank, engine.max_model_len};
    settings.kv_cache = {kv_blocks, engine.kv_block_size, config_.kv_dtype};
    settings.world_size = static_cast<int>(num_ranks);
    settings.reserved_device_bytes = static_cast<size_t>(config_.gpu.reserved_mb) * kMegabyte;
    const std::filesystem::path images = std::filesystem::path(line_.model) / "preprocessor_config.json";
    if (model_.vision && std::filesystem::exists(images)) {
      settings.max_image_pixels = read_image_processor_config(images).max_pixels;
    }
    return settings;
  }

  PlanProblem make_problem(int64_t kv_blocks, const std::vector<size_t>& memory) const {
    PlanProblem problem{.model = model_, .profile = profile_, .ranks = {}};
    const RankSettings sizes = settings(kv_blocks, memory.size());
    const MemoryUse main = has_gpus_ ? device_memory_without_experts(model_, sizes) : host_memory_without_experts(model_, sizes);
    for (size_t rank = 0; rank < memory.size(); ++rank) {
      RankPlanMemory& tiers = problem.ranks.emplace_back();
      tiers.tiers[has_gpus_ ? MemoryTier::kDevice : MemoryTier::kHost] = {memory[rank], main};
      if (!host_memory_.empty()) {
        const size_t host = rank < host_memory_.size() ? host_memory_[rank] : host_memory_.front();
        tiers.tiers[MemoryTier::kHost] = {host, host_memory_beside_device(model_, sizes)};
      }
      if (!line_.disk.empty()) add_disk(memory.size(), tiers);
    }
    problem.dense_bytes = dense_weight_bytes(model_, config_.weights);
    set_target(problem);
    return problem;
  }

  // Experts on disk pass through a cache in the memory of the processor that computes them.
  void add_disk(size_t num_ranks, RankPlanMemory& rank) const {
    const ComputePlace place = has_gpus_ ? ComputePlace::kDevice : ComputePlace::kHost;
    rank.tiers[MemoryTier::kDisk].budget_bytes = disk_bytes(line_.disk, num_ranks);
    rank.tiers.begin()->second.use.buffers +=
        kCachedLayers * static_cast<size_t>(model_.moe.top_k) * expert_bytes_in(model_, {}, place);
  }

  // Without a bound of its own, throughput loses no more than the best uniform format of four bits.
  void set_target(PlanProblem& problem) const {
    if (line_.max_loss < 0.0 && line_.target != "throughput") return;
    problem.target = PlanTarget::kThroughput;
    if (line_.max_loss >= 0.0) {
      problem.max_loss = line_.max_loss;
      return;
    }
    double least = std::numeric_limits<double>::infinity();
    for (const ExpertOption& option : expert_options(problem)) {
      if (option.format.bits_per_code() == 4 && !model_.quantization) {
        least = std::min(least, uniform_loss_of(problem, option.format));
      }
    }
    problem.max_loss = least;
  }

  bool fits(int64_t kv_blocks, const std::vector<size_t>& memory) const {
    return !find_shortage(make_problem(kv_blocks, memory));
  }

  ShortageAdvice advise(const MemoryShortage& shortage) const {
    ShortageAdvice advice{.has_disk = !line_.disk.empty()};
    const int64_t kv_blocks = config_.engine.kv_blocks_per_rank;
    const size_t smallest = std::ranges::min(memory_);
    advice.enough_memory = *std::ranges::max_element(memory_) + shortage.missing_bytes;
    for (size_t ranks = num_ranks_ + 1; ranks <= kMaxAdvisedRanks && advice.enough_ranks == 0; ranks += (ranks + 7) / 8) {
      if (fits(kv_blocks, std::vector<size_t>(ranks, smallest))) advice.enough_ranks = static_cast<int>(ranks);
    }
    for (int64_t blocks = kv_blocks / 2; blocks > 0 && advice.enough_kv_blocks == 0; blocks /= 2) {
      if (fits(blocks, memory_)) advice.enough_kv_blocks = blocks;
    }
    return advice;
  }

  const CommandLine& line_;
  size_t num_ranks_;
  bool has_gpus_;
  std::vector<size_t> memory_;
  std::vector<size_t> host_memory_;
  ServerConfig config_;
  ModelConfig model_;
  PrecisionProfile profile_;
};

}  // namespace

int run_plan(const CommandLine& line) { return Planner(line).run(); }

}  // namespace skipper
