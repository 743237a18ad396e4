#include "guard/reference_loader.h"

#include <functional>
#include <map>
#include <string>
#include <utility>

#include "base/error.h"
#include "model/weight_loader.h"

namespace skipper {
namespace {

// The fingerprint of the checkpoint whose weights are served.
const std::string& origin_of(const ModelConfig& served) {
  return served.quantization ? served.quantization->source_fingerprint : served.fingerprint;
}

std::filesystem::path reference_directory(const GuardConfig& config, const std::filesystem::path& directory,
                                          const ModelConfig& served) {
  if (!config.reference_model.empty()) return config.reference_model;
  if (served.quantization) {
    throw InvalidFile("guard.reference_model: " + directory.string() +
                      " is quantised, so its experts cannot be compared with themselves; name the directory of the original "
                      "checkpoint");
  }
  return directory;
}

ModelConfig reference_config(const std::filesystem::path& directory, const ModelConfig& served) {
  ModelConfig config = load_model_config(directory);
  if (config.quantization) {
    throw InvalidFile("guard.reference_model: " + directory.string() +
                      " is quantised; name the directory of the original checkpoint");
  }
  if (config.fingerprint != origin_of(served)) {
    throw InvalidFile("guard.reference_model: " + directory.string() + " is model " + config.fingerprint +
                      ", but the served experts come from model " + origin_of(served) + "; name that one's directory");
  }
  return config;
}

std::vector<std::vector<ExpertSlot>> reference_slots(const ExpertStore& served, const WeightFormat& format) {
  std::vector<std::vector<ExpertSlot>> slots(static_cast<size_t>(served.num_layers()));
  for (int layer = 0; layer < served.num_layers(); ++layer) {
    for (const ExpertSlot& slot : served.slots(layer)) {
      slots[static_cast<size_t>(layer)].push_back({.expert = slot.expert, .format = format});
    }
  }
  return slots;
}

// Of one MoE layer: a few slots in each of its formats.
using SlotsByFormat = std::map<std::string, std::vector<size_t>>;

SlotsByFormat slots_by_format(const std::vector<ExpertSlot>& slots) {
  SlotsByFormat places;
  for (size_t slot = 0; slot < slots.size(); ++slot) {
    std::vector<size_t>& found = places[name_of(slots[slot].format)];
    if (found.size() < kProbedExperts) found.push_back(slot);
  }
  return places;
}

// What rounding the expert in a slot of a layer to a format does to its outputs.
using RoundingProbe = std::function<RatioSums(int layer, size_t place, const WeightFormat& format)>;

KnownErrors errors_of_formats(const std::vector<std::vector<ExpertSlot>>& slots, const WeightFormat& reference_format,
                              const ReferenceExperts& known, const RoundingProbe& probe) {
  KnownErrors errors(slots.size());
  for (int layer = 0; layer < static_cast<int>(slots.size()); ++layer) {
    const std::vector<ExpertSlot>& all = slots[static_cast<size_t>(layer)];
    for (const auto& [name, places] : slots_by_format(all)) {
      const WeightFormat& format = all[places.front()].format;
      if (known.knows(layer, format)) continue;
      RatioSums sums;
      if (format != reference_format) {
        for (const size_t place : places) sums += probe(layer, place, format);
      }
      errors[static_cast<size_t>(layer)][name] = relative_error(sums);
    }
  }
  return errors;
}

}  // namespace

size_t reference_bytes(const GuardConfig& config, const ExpertStore& served) {
  size_t num_experts = 0;
  for (int layer = 0; layer < served.num_layers(); ++layer) num_experts += served.slots(layer).size();
  return num_experts * stored_expert_bytes(config.reference_format(), served.hidden_size(), served.intermediate_size());
}

ReferenceLoader::ReferenceLoader(const GuardConfig& config, const std::filesystem::path& directory, const ModelConfig& served,
                                 const WeightConfig& formats)
    : config_(config),
      directory_(reference_directory(config, directory, served)),
      model_(reference_config(directory_, served)),
      formats_(formats) {}

std::unique_ptr<ReferenceExperts> ReferenceLoader::load(const ExpertStore& served, ThreadPool& workers) const {
  const Checkpoint checkpoint(directory_);
  auto reference = std::make_unique<ReferenceExperts>(
      load_expert_store({checkpoint, model_, formats_}, reference_slots(served, config_.reference_format()), workers), config_);
  checkpoint.release_all_pages();
  std::vector<std::vector<ExpertSlot>> slots;
  for (int layer = 0; layer < served.num_layers(); ++layer) {
    slots.emplace_back(served.slots(layer).begin(), served.slots(layer).end());
  }
  Stream stream(workers);
  const auto round = [&](int layer, size_t place, const WeightFormat& format) {
    return rounding_error(reference->store(), layer, static_cast<int>(place), format, stream);
  };
  reference->learn(errors_of_formats(slots, config_.reference_format(), *reference, round));
  reference->serve(served);
  return reference;
}

KnownErrors ReferenceLoader::measure(const std::vector<std::vector<ExpertSlot>>& slots, const ReferenceExperts& known) const {
  const Checkpoint checkpoint(directory_);
  ThreadPool& this_thread = ThreadPool::caller_only();
  Stream stream(this_thread);
  const auto read_and_round = [&](int layer, size_t place, const WeightFormat& format) {
    const int32_t expert = slots[static_cast<size_t>(layer)][place].expert;
    const ExpertSlot probe{.expert = expert, .format = config_.reference_format()};
    const ExpertStore exact = load_expert_layer({checkpoint, model_, formats_}, layer, {&probe, 1}, this_thread);
    return rounding_error(exact, layer, 0, format, stream);
  };
  KnownErrors errors = errors_of_formats(slots, config_.reference_format(), known, read_and_round);
  checkpoint.release_all_pages();
  return errors;
}

}  // namespace skipper
