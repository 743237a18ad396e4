// Turns reading ahead off where the engine does not wait less for it, and tries it again from time to time.
#pragma once

#include <cstdint>

namespace skipper {

// Windows without and with foresight take turns until both have been measured; the better way then runs for some windows.
class ForesightSwitch {
 public:
  // Layers of experts in a window, and for how many windows a decision stands.
  static constexpr int64_t kWindowLayers = 256;
  static constexpr int64_t kStandingWindows = 16;
  // Waits must fall by so much, or reading ahead is not worth its bytes.
  static constexpr double kLeastGain = 0.03;

  bool is_on() const { return is_on_; }
  // Times that it was turned off after a comparison.
  int64_t num_times_off() const { return num_times_off_; }
  // Seconds waited per expert needed, in the last window of each kind; 0 before there was one.
  double waited_without() const { return waited_without_; }
  double waited_with() const { return waited_with_; }

  // A layer needed so many experts of the disk, and the engine waited for them so long.
  void observe(int64_t num_needs, double exposed_seconds);

 private:
  enum class Phase : uint8_t { kMeasureWithout, kMeasureWith, kStand };
  void end_window();

  Phase phase_ = Phase::kMeasureWithout;
  bool is_on_ = false;
  int64_t num_layers_ = 0;
  int64_t num_needs_ = 0;
  double exposed_seconds_ = 0.0;
  double waited_without_ = 0.0;
  double waited_with_ = 0.0;
  int64_t windows_standing_ = 0;
  int64_t num_times_off_ = 0;
};

}  // namespace skipper
