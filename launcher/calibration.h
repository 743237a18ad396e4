// Measures the inputs of a checkpoint's matrices over calibration data.
#pragma once

#include <functional>

#include "launcher/flags.h"
#include "quantization/checkpoint_quantizer.h"

namespace skipper {

// Loads line.model in its own formats, runs line.calibration through it, at most line.calibration_limit samples, and frees the
// model. Shows progress. `check_stopped` is called between steps and ends the work by throwing. Throws InvalidFile for data that
// is missing, malformed, empty or too long.
Calibration calibrate(const CommandLine& line, const std::function<void()>& check_stopped);

}  // namespace skipper
