#include "residency/eviction_policy.h"

#include <glog/logging.h>

#include <vector>

namespace skipper {
namespace {

// What every rule knows of an expert.
struct UseRecord {
  int64_t num_uses = 0;
  int64_t last_use = 0;  // 0: never
};

class CountingPolicy final : public EvictionPolicy {
 public:
  CountingPolicy(EvictionRule rule, const ExpertCounts& counts) : rule_(rule), counts_(counts), records_(counts.total()) {}

  void note_use(const ExpertId& id) override {
    UseRecord& record = records_[counts_.index(id)];
    ++record.num_uses;
    record.last_use = ++now_;
  }

  size_t choose(std::span<const ExpertId> candidates, int layer) const override {
    CHECK(!candidates.empty());
    size_t worst = 0;
    for (size_t i = 1; i < candidates.size(); ++i) {
      if (worth(candidates[i], layer) < worth(candidates[worst], layer)) worst = i;
    }
    return worst;
  }

 private:
  struct Worth {
    double value;
    int64_t last_use;
    auto operator<=>(const Worth&) const = default;
  };

  Worth worth(const ExpertId& id, int layer) const {
    const UseRecord& record = records_[counts_.index(id)];
    const auto uses = static_cast<double>(record.num_uses);
    switch (rule_) {
      case EvictionRule::kLeastRecent:
        return {0.0, record.last_use};
      case EvictionRule::kLeastFrequent:
        return {uses, record.last_use};
      case EvictionRule::kLayerDistance:
        return {uses / layers_until(id.layer, layer), record.last_use};
    }
    return {};
  }

  // Layers that run before `target` does again; its own turn now is over, so that it is a whole round away.
  double layers_until(int target, int now) const {
    const int ahead = (target - now + counts_.num_layers) % counts_.num_layers;
    return ahead == 0 ? counts_.num_layers : ahead;
  }

  EvictionRule rule_;
  ExpertCounts counts_;
  std::vector<UseRecord> records_;
  int64_t now_ = 0;
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_eviction_policy(EvictionRule rule, const ExpertCounts& counts) {
  return std::make_unique<CountingPolicy>(rule, counts);
}

}  // namespace skipper
