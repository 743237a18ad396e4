// What stands in for the configured rules, so that measurements can ask what better or worse ones would do.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace skipper {

class EvictionPolicy;
class ExpertPredictor;

enum class ForesightUse : uint8_t {
  kWhereItHelps,  // ForesightSwitch decides
  kAlways,        // for measurements
};

// Without a function the configuration's rule applies.
struct ResidenceParts {
  std::function<std::unique_ptr<EvictionPolicy>()> make_eviction = nullptr;
  std::function<std::unique_ptr<ExpertPredictor>()> make_predictor = nullptr;
  ForesightUse foresight = ForesightUse::kWhereItHelps;
};

}  // namespace skipper
