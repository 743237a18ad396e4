// The experts of a rank that rest on its disk, layer by layer: what is needed is read first, what is foreseen meanwhile.
#pragma once

#include <memory>
#include <vector>

#include "experts/expert_residence.h"
#include "residency/disk_reading.h"
#include "residency/expert_cache.h"
#include "residency/expert_predictor.h"
#include "residency/foresight_switch.h"
#include "residency/residence_parts.h"

namespace skipper {

// After a layer that runs nearly all of its experts, as with a prompt, the next runs nearly all too: they are read while it
// computes, as frames come free, whatever foresight says. After other layers the predictor is asked.
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
  DiskReading reading() const;
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
  void read_ahead();
  ExpertId expert_at(int layer, int32_t slot) const;

  ExpertCache cache_;
  std::vector<std::vector<int32_t>> slots_;
  std::vector<std::vector<ExpertId>> on_disk_;  // by MoE layer
  std::unique_ptr<ExpertPredictor> predictor_;
  ForesightUse use_;
  ForesightSwitch switch_;

  int layer_ = 0;
  bool is_streaming_ = false;  // the layer runs nearly all of its experts
  int64_t num_needs_ = 0;      // of the layer
  int64_t num_in_memory_ = 0;  // needs since start
  double exposed_before_ = 0.0;
  std::vector<Pending> pending_;  // not given yet
  std::vector<ResidentExpert> given_;
  std::vector<int> given_frames_;
  std::vector<int> held_frames_;
  std::vector<ExpertId> needed_;
  std::vector<ExpertId> ahead_;  // of the next layer, to be read while this one computes
  std::vector<int32_t> used_experts_;
};

}  // namespace skipper
