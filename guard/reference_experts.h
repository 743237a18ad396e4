// A second set of this rank's experts, in a format that is trusted, and how far the served ones are from it.
#pragma once

#include <cstdint>
#include <vector>

#include "experts/expert_ffn.h"
#include "experts/expert_store.h"
#include "guard/guard_config.h"
#include "guard/guard_reading.h"
#include "guard/sliding_sums.h"
#include "tensor/device_runtime.h"

namespace skipper {

// [MoE layer][slot]: the relative error of outputs that the slot's format is known to cost.
using KnownErrors = std::vector<std::vector<double>>;

// Rounds some experts of each layer and format from `reference` anew and compares their outputs over random rows: what a format
// costs, whatever lies in the served experts' memory. served[l] = the slots of MoE layer l, with the experts of `reference`.
KnownErrors measure_known_errors(const ExpertStore& reference, const std::vector<std::vector<ExpertSlot>>& served,
                                 Stream& stream);

// Engine thread only. Nothing is allocated after construction.
class ReferenceExperts {
 public:
  // `store` is frozen and has in every slot the expert that the served store has there.
  ReferenceExperts(ExpertStore store, KnownErrors known_errors, const GuardConfig& config);

  // Computes a share of the rows again. `out` holds what the served experts made of the batch.
  void observe(int moe_layer, const ExpertBatch& batch, const Tensor& out, Stream& stream);

  // Of the windows as they are now.
  GuardReading reading() const;
  // Other experts are served from here on, with other known errors, or the same.
  void serve(KnownErrors known_errors);
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
  KnownErrors known_errors_;
  std::vector<std::vector<SlidingSums>> windows_;  // [MoE layer][slot]
  GuardReading so_far_;
  uint64_t num_seen_rows_ = 0;

  ExpertScratch scratch_;
  std::vector<int32_t> chosen_;  // rows of the served batch
  Tensor row_index_;             // [kMostRows] i32
  Tensor row_offsets_;           // [most slots + 1] i32
  Tensor out_;                   // [kMostRows, H] f32
};

}  // namespace skipper
