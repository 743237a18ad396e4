// How large the inputs of each matrix are over calibration data: what makes rounding know which weights matter.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "experts/activation_observer.h"

namespace skipper {

// The inputs of one matrix, or of all that read the same rows.
struct InputKey {
  MatrixInput input = MatrixInput::kHead;
  int layer = 0;     // decoder layer; of experts the MoE layer, as in ExpertId
  int expert = -1;   // −1: a dense matrix

  friend auto operator<=>(const InputKey&, const InputKey&) = default;
};

struct ChannelSquares {
  std::vector<double> sums;  // [K] Σ x² over the rows
  int64_t num_rows = 0;
};

// Collects Σ x² per input channel in FP64. Rows have the same bits however they were batched, so another grouping changes only
// the order of these sums: 1e-13 of a sum, far below the float that importance is. The number of threads changes nothing.
class ActivationStatistics {
 public:
  // Fewer rows than this say too little about single channels.
  static constexpr int64_t kLeastRows = 32;

  // An ActivationObserver. Not thread-safe itself; works on the threads of `stream`.
  void add(const ObservedRows& rows, Stream& stream);

  // Null for inputs that never came.
  const ChannelSquares* find(const InputKey& key) const;

  // Experts of all layers with kLeastRows rows of their own.
  int64_t num_measured_experts() const;

  // The mean square of each channel, for pack_integer_rows(): of the expert itself where it saw kLeastRows rows. Otherwise its
  // gate and up take the mean over all rows of the layer's experts, which read the same channels. Down takes none, since every
  // expert has hidden channels of its own and their mean tells nothing about one; nor does any other matrix with too few rows.
  // None is an empty vector. A hundredth of the mean over all channels is added to each, as GPTQ dampens its Hessian (Frantar et
  // al. 2022, section 3.3): a channel that was silent here may speak elsewhere.
  std::vector<float> importance(const InputKey& key) const;

 private:
  ChannelSquares of_all_experts(const InputKey& key) const;

  std::map<InputKey, ChannelSquares> inputs_;
};

}  // namespace skipper
