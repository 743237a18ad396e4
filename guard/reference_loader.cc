#include "guard/reference_loader.h"

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

std::filesystem::path reference_directory(const GuardConfig& config, const WatchedModel& watched) {
  if (!config.reference_model.empty()) return config.reference_model;
  if (watched.config.quantization) {
    throw InvalidFile("guard.reference_model: " + watched.directory.string() +
                      " is quantised, so its experts cannot be compared with themselves; name the directory of the original "
                      "checkpoint");
  }
  return watched.directory;
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
  std::vector<std::vector<ExpertSlot>> slots = all_slots(served);
  for (std::vector<ExpertSlot>& layer : slots) {
    for (ExpertSlot& slot : layer) slot = {.expert = slot.expert, .format = format};
  }
  return slots;
}

}  // namespace

std::vector<std::vector<ExpertSlot>> all_slots(const ExpertStore& store) {
  std::vector<std::vector<ExpertSlot>> slots;
  for (int layer = 0; layer < store.num_layers(); ++layer) {
    slots.emplace_back(store.slots(layer).begin(), store.slots(layer).end());
  }
  return slots;
}

size_t reference_bytes(const GuardConfig& config, const ExpertStore& served) {
  size_t num_experts = 0;
  for (int layer = 0; layer < served.num_layers(); ++layer) num_experts += served.slots(layer).size();
  return num_experts * stored_expert_bytes(config.reference_format(), served.hidden_size(), served.intermediate_size());
}

std::unique_ptr<ReferenceExperts> load_reference_experts(const GuardConfig& config, const WatchedModel& watched,
                                                         ThreadPool& workers) {
  const std::filesystem::path directory = reference_directory(config, watched);
  const ModelConfig model = reference_config(directory, watched.config);
  const Checkpoint checkpoint(directory);
  ExpertStore store = load_expert_store({checkpoint, model, watched.formats},
                                        reference_slots(watched.experts, config.reference_format()), workers);
  checkpoint.release_all_pages();
  Stream stream(workers);
  KnownErrors known = measure_known_errors(store, all_slots(watched.experts), stream);
  return std::make_unique<ReferenceExperts>(std::move(store), std::move(known), config);
}

}  // namespace skipper
