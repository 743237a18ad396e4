// A second set of this rank's experts, in a format that is trusted, and how far the served ones are from it.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "experts/expert_ffn.h"
#include "experts/expert_store.h"
#include "guard/guard_config.h"
#include "guard/guard_reading.h"
#include "guard/sliding_sums.h"
#include "tensor/device_runtime.h"

namespace skipper {

// The relative error of outputs that a format is known to cost: [MoE layer], by the format's name.
using KnownErrors = std::vector<std::map<std::string, double>>;

// How many experts of each layer and format are rounded to learn that.
inline constexpr int kProbedExperts = 4;

// Rounds the expert in a slot of `reference` to `format` and compares the two's outputs over random rows: what a format costs,
// whatever lies in the served experts' memory.
RatioSums rounding_error(const ExpertStore& reference, int layer, int slot, const WeightFormat& format, Stream& stream);
// √(numerator / denominator): of one or several rounding_error().
double relative_error(const RatioSums& sums);

// Engine thread only, but for learn() and knows(). Only serve() allocates after construction.
class ReferenceExperts {
 public:
  // `store` is frozen. Nothing is watched before serve().
  ReferenceExperts(ExpertStore store, const GuardConfig& config);

  // Thread-safe: what formats cost, more than was known, or anew.
  void learn(const KnownErrors& errors);
  bool knows(int moe_layer, const WeightFormat& format) const;

  // Computes a share of the rows again. `out` holds what the served experts made of the batch.
  void observe(int moe_layer, const ExpertBatch& batch, const Tensor& out, Stream& stream);

  // Of the windows as they are now.
  GuardReading reading() const;
  // These experts are served from here on; `served` has in every slot the expert that the reference has there, in a format whose
  // error is known.
  void serve(const ExpertStore& served);
  void forget();
  // Exchanges places with the served experts (ExpertStore::exchange_layer), to serve instead of them.
  ExpertStore& store() { return store_; }
  const ExpertStore& store() const { return store_; }

 private:
  void choose_rows(const ExpertBatch& batch);
  bool is_chosen();
  void compare(int moe_layer, const Tensor& out);

  GuardConfig config_;
  ExpertStore store_;
  ExpertFfn experts_;
  mutable std::mutex mutex_;  // of known_errors_
  KnownErrors known_errors_;
  std::vector<std::vector<double>> allowed_errors_;  // [MoE layer][slot]
  std::vector<std::vector<SlidingSums>> windows_;    // [MoE layer][slot]
  GuardReading so_far_;
  uint64_t num_seen_rows_ = 0;

  ExpertScratch scratch_;
  std::vector<int32_t> chosen_;  // rows of the served batch
  Tensor row_index_;             // [kMostRows] i32
  Tensor row_offsets_;           // [most slots + 1] i32
  Tensor out_;                   // [kMostRows, H] f32
};

}  // namespace skipper
