// Which expert each frame of a cache holds, and which frame a new one gets: bookkeeping without bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "residency/eviction_policy.h"

namespace skipper {

// Not thread-safe.
class FrameTable {
 public:
  FrameTable(int num_frames, const ExpertCounts& counts, std::unique_ptr<EvictionPolicy> policy);
  FrameTable(int num_frames, const ExpertCounts& counts, EvictionRule rule);

  int num_frames() const { return static_cast<int>(frames_.size()); }
  int num_pinned() const { return num_pinned_; }
  // The frame of an expert; −1: none.
  int find(const ExpertId& id) const { return frame_of_[counts_.index(id)]; }

  void note_use(const ExpertId& id) { policy_->note_use(id); }
  // A free frame, or that of the expert that the rule gives up while `layer` runs; it holds `id` from now on, pinned once. −1:
  // all frames are pinned.
  int take(const ExpertId& id, int layer);
  // A pinned frame keeps its expert. Pins count.
  void pin(int frame);
  void unpin(int frame);
  // The frame is free again, its bytes are nobody's. It is not pinned.
  void drop(int frame);
  ExpertId expert_of(int frame) const { return *frames_[static_cast<size_t>(frame)].expert; }

 private:
  struct Frame {
    std::optional<ExpertId> expert = {};
    int num_pins = 0;
  };
  int choose_frame(int layer);

  ExpertCounts counts_;
  std::unique_ptr<EvictionPolicy> policy_;
  std::vector<Frame> frames_;
  std::vector<int32_t> frame_of_;      // by expert
  std::vector<ExpertId> candidates_;   // of the last choice
  std::vector<int> candidate_frames_;
  int num_pinned_ = 0;
};

}  // namespace skipper
