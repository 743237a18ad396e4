#include "launcher/budget_planner.h"

#include <glog/logging.h>

#include "base/error.h"
#include "machine/machine_profile.h"
#include "planning/analytic_profile.h"
#include "planning/memory_size.h"
#include "processor/image_processor.h"

namespace skipper {
namespace {

constexpr size_t kMegabyte = 1'000'000;

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

void check_settings(const PlannedGroup& group, const ServerConfig& config, const BudgetOptions& options) {
  if (group.model.num_moe_layers() == 0) throw InvalidFile(group.directory.string() + ": has no experts to plan");
  if (group.place == ComputePlace::kHost && !options.host_memory.empty()) {
    throw UsageError("flag --host_memory: ranks on CPUs have no memory but --memory; leave it out, or use --device cuda");
  }
  if (config.engine.kv_blocks_per_rank == 0) {
    throw Error("engine.kv_blocks_per_rank: 0 leaves the KV cache what experts leave, but a plan gives experts what the KV "
                "cache leaves; give a number");
  }
  if (config.weights.experts) {
    throw Error("weights.experts: " + name_of(*config.weights.experts) +
                " is one format for all experts, which the plan decides; leave the setting out");
  }
}

PrecisionProfile read_profile(const std::string& path, const ModelConfig& model) {
  if (path.empty()) return analytic_profile(model, analytic_formats());
  return load_precision_profile(path, {model.fingerprint, model.num_moe_layers(), static_cast<int>(model.moe.num_experts)});
}

std::vector<int32_t> read_owners(const std::string& path, const PlannedGroup& group) {
  return owners_of(load_expert_plan(path, {.model_fingerprint = group.model.fingerprint,
                                           .num_moe_layers = group.model.num_moe_layers(),
                                           .num_experts = static_cast<int>(group.model.moe.num_experts),
                                           .world_size = group.num_ranks}));
}

// What the plan will say about speed on another machine is worth a warning, not an end.
void warn_of_other_machine(const std::string& path, const MachineProfile& machine, const PlannedGroup& group) {
  const std::string other = difference(machine.host, this_host());
  if (!other.empty()) {
    LOG(WARNING) << path << ": measured on another machine than this (" << other
                 << "); predicted speed holds for that one, 'skipper machine' measures this one";
  }
  if (machine.ranks_per_host != group.num_ranks) {
    LOG(WARNING) << path << ": measured with " << machine.ranks_per_host << " rank(s) on a host, but the plan is for "
                 << group.num_ranks << "; unless they are on as many hosts as give that number, measure with as many";
  }
}

// Without a rate of its own a part keeps the assumed one.
MachineRates read_rates(const std::string& path, const PlannedGroup& group) {
  const MachineProfile machine = load_machine_profile(path);
  warn_of_other_machine(path, machine, group);
  MachineRates rates;
  rates.source = path + ", of " + machine.host.name;
  rates.host = machine.memory_read.median;
  if (machine.disk_read) rates.disk = machine.disk_read->median;
  if (machine.bus) rates.link = machine.bus->median;
  if (machine.device_memory) rates.device = machine.device_memory->median;
  for (const auto& [format, product] : machine.products) rates.products[format] = product.row.median;
  const std::optional<LinkRates>& link = machine.network_link ? machine.network_link : machine.node_link;
  if (!link) return rates;
  const auto row_bytes = static_cast<double>(group.model.hidden_size) * sizeof(float);
  rates.exchange_seconds = link->latency.median + row_bytes / link->bandwidth.median;
  return rates;
}

}  // namespace

RankSettings rank_settings(const PlannedGroup& group, const ServerConfig& config) {
  const EngineConfig& engine = config.engine;
  RankSettings settings{.weights = config.weights, .dispatch = config.dispatch};
  settings.limits = {engine.max_tokens_per_step, engine.max_logit_rows, engine.max_sequences_per_rank, engine.max_model_len};
  settings.kv_cache = {engine.kv_blocks_per_rank, engine.kv_block_size, config.kv_dtype};
  settings.world_size = group.num_ranks;
  if (config.guard.is_on()) settings.reference_experts = config.guard.reference_format();
  settings.reserved_device_bytes = static_cast<size_t>(config.gpu.reserved_mb) * kMegabyte;
  const std::filesystem::path images = group.directory / "preprocessor_config.json";
  if (group.model.vision && std::filesystem::exists(images)) {
    settings.max_image_pixels = read_image_processor_config(images).max_pixels;
  }
  return settings;
}

BudgetOptions budget_options_from(const CommandLine& line) {
  return {.memory = line.memory, .host_memory = line.host_memory, .disk = line.disk, .profile = line.profile,
          .target = line.target, .max_loss = line.max_loss, .owners_of = line.owners_of, .machine = line.machine};
}

BudgetPlanner::BudgetPlanner(const PlannedGroup& group, const ServerConfig& config, const BudgetOptions& options)
    : profile_(read_profile(options.profile, group.model)), request_{.model = group.model, .profile = profile_} {
  check_settings(group, config, options);
  const auto num_ranks = static_cast<size_t>(group.num_ranks);
  request_.settings = rank_settings(group, config);
  request_.place = group.place;
  request_.memory = sizes_of(options.memory, "memory", num_ranks);
  if (!options.host_memory.empty()) request_.host_memory = sizes_of(options.host_memory, "host_memory", num_ranks);
  if (!options.disk.empty()) request_.disk_bytes = disk_bytes(options.disk, num_ranks);
  if (options.target == "throughput") request_.target = PlanTarget::kThroughput;
  if (options.max_loss >= 0.0) request_.max_loss = options.max_loss;
  if (!options.machine.empty()) request_.rates = read_rates(options.machine, group);
  if (!options.owners_of.empty()) request_.owners = read_owners(options.owners_of, group);
}

}  // namespace skipper
