// How much of the work is done a second time in reference formats, and how far the two may be apart.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/weight_format.h"

namespace skipper {

struct GuardConfig {
  double share = 0.0;            // of the rows that experts compute: computed again by reference experts; 0: no guard
  double request_share = 0.0;    // of the answered requests: scored again for their KL
  double max_error_ratio = 2.0;  // an expert's relative error over what its format is known to cost
  double max_kl = 0.5;           // nats per token from the reference experts' predictions
  int64_t min_rows = 16;         // of an expert, before it is judged
  int64_t window_rows = 256;     // of an expert, over which its error counts
  int64_t min_tokens = 64;       // that were scored, before their KL is judged
  int64_t window_tokens = 512;   // over which the KL counts
  std::optional<WeightFormat> reference_experts = {};  // absent: bf16
  std::string reference_model = {};   // directory of the checkpoint they are read from; empty: the served one
  std::string log = {};               // file for a line each time the guard steps in; empty: the server's log alone

  bool is_on() const { return share > 0.0; }
  WeightFormat reference_format() const { return reference_experts.value_or(WeightFormat{}); }

  // Throws InvalidFile naming the key ("guard.share").
  void validate() const;
};

}  // namespace skipper
