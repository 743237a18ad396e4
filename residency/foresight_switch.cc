#include "residency/foresight_switch.h"

namespace skipper {

void ForesightSwitch::observe(int64_t num_needs, double exposed_seconds) {
  if (num_needs == 0) return;
  num_needs_ += num_needs;
  exposed_seconds_ += exposed_seconds;
  if (++num_layers_ < kWindowLayers) return;
  end_window();
  num_layers_ = num_needs_ = 0;
  exposed_seconds_ = 0.0;
}

void ForesightSwitch::end_window() {
  const double waited = exposed_seconds_ / static_cast<double>(num_needs_);
  switch (phase_) {
    case Phase::kMeasureWithout:
      waited_without_ = waited;
      is_on_ = true;
      phase_ = Phase::kMeasureWith;
      return;
    case Phase::kMeasureWith:
      waited_with_ = waited;
      is_on_ = waited_with_ < (1.0 - kLeastGain) * waited_without_;
      if (!is_on_) ++num_times_off_;
      phase_ = Phase::kStand;
      windows_standing_ = 0;
      return;
    case Phase::kStand:
      if (++windows_standing_ < kStandingWindows) return;
      is_on_ = false;
      phase_ = Phase::kMeasureWithout;
      return;
  }
}

}  // namespace skipper
