// The experts of a rank that rest on its disk, layer by layer: what is needed is read first, what is foreseen meanwhile.
#pragma once

#include <memory>
#include <vector>

#include "experts/expert_residence.h"
#include "residency/expert_cache.h"
#include "residency/expert_predictor.h"
#include "residency/foresight_switch.h"

namespace skipper {

// What became of reading ahead, beside the cache's own counters.
struct ForesightReport {
  bool is_on = false;
  int64_t num_times_off = 0;
  double waited_without = 0.0;  // seconds per expert needed
  double waited_with = 0.0;
};

enum class ForesightUse : uint8_t {
  kWhereItHelps,  // ForesightSwitch decides
  kAlways,        // for measurements
};

class DiskResidence final : public ExpertResidence {
 public:
  // slots[l][s]: the expert of slot s of MoE layer l. `predictor` may be null.
  DiskResidence(const ExpertCacheConfig& config, std::vector<std::vector<int32_t>> slots,
                std::unique_ptr<ExpertPredictor> predictor, ForesightUse use = ForesightUse::kWhereItHelps);

  void begin(const LayerDemand& demand, Stream& stream) override;
  std::span<const ResidentExpert> next() override;
  void release() override;

  CacheCounters counters() const { return cache_.counters(); }
  ForesightReport foresight() const;
  const ExpertCache& cache() const { return cache_; }

 private:
  struct Pending {
    int32_t slot = 0;
    ExpertId id;
    int frame = -1;  // −1: waits for one
  };

  bool foresees() const;
  void end_layer();
  void demand_frames();
  void foresee(const LayerDemand& demand, Stream& stream);
  ExpertId expert_at(int layer, int32_t slot) const;

  ExpertCache cache_;
  std::vector<std::vector<int32_t>> slots_;
  std::unique_ptr<ExpertPredictor> predictor_;
  ForesightUse use_;
  ForesightSwitch switch_;

  int layer_ = 0;
  int64_t num_needs_ = 0;      // of the layer
  double exposed_before_ = 0.0;
  std::vector<Pending> pending_;  // not given yet
  std::vector<ResidentExpert> given_;
  std::vector<int> given_frames_;
  std::vector<ExpertId> needed_;
  std::vector<int32_t> used_experts_;
};

}  // namespace skipper
