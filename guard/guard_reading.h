// What a rank tells rank 0 about its experts after a step; plain data of fixed size.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace skipper {

struct GuardReading {
  // The expert that is furthest from what it may be, among those with enough rows; expert −1: none has.
  int32_t moe_layer = -1;
  int32_t expert = -1;
  double relative_error = 0.0;  // √(Σ ‖E_f(x) − E(x)‖² / Σ ‖E(x)‖²) over its window
  double allowed_error = 0.0;
  int64_t num_rows = 0;
  // Of all experts of the rank since its start.
  int64_t num_rows_so_far = 0;
  double error_so_far = 0.0;    // Σ ‖E_f(x) − E(x)‖²
  double output_so_far = 0.0;   // Σ ‖E(x)‖²

  bool has_expert() const { return expert >= 0; }
  // Over 1 is too far; NaN is.
  double excess() const {
    if (!has_expert()) return 0.0;
    return std::isnan(relative_error) ? std::numeric_limits<double>::infinity() : relative_error / allowed_error;
  }
};

}  // namespace skipper
