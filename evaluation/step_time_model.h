// Step time as a sum of what a step does, fitted to measured steps.
#pragma once

#include <span>
#include <vector>

namespace skipper {

// Means over the steps of one pass; all passes run the same tokens.
struct StepTimeSample {
  double pairs = 0.0;    // (token, expert) pairs run
  double bytes = 0.0;    // payload to other ranks
  double seconds = 0.0;
};

// seconds = base + per_pair · pairs + per_byte · bytes. No coefficient of what a step does is negative, so the model never
// claims that doing less takes longer.
struct StepTimeModel {
  double base_seconds = 0.0;
  double seconds_per_pair = 0.0;
  double seconds_per_byte = 0.0;
  double relative_error = 0.0;  // root of the mean squared error, over the mean of the measured times

  double seconds(double pairs, double bytes) const {
    return base_seconds + seconds_per_pair * pairs + seconds_per_byte * bytes;
  }
};

// Least squares. What does not vary over the samples, or would get a negative coefficient, is left out: one sample gives a
// constant. Needs at least one.
StepTimeModel fit_step_time(std::span<const StepTimeSample> samples);

}  // namespace skipper
