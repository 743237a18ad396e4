#include "residency/frame_table.h"

#include <glog/logging.h>

#include <utility>

namespace skipper {

FrameTable::FrameTable(int num_frames, const ExpertCounts& counts, std::unique_ptr<EvictionPolicy> policy)
    : counts_(counts), policy_(std::move(policy)), frames_(static_cast<size_t>(num_frames)), frame_of_(counts.total(), -1) {}

FrameTable::FrameTable(int num_frames, const ExpertCounts& counts, EvictionRule rule)
    : FrameTable(num_frames, counts, make_eviction_policy(rule, counts)) {}

int FrameTable::take(const ExpertId& id, int layer) {
  CHECK_LT(find(id), 0) << "expert " << id.expert << " of MoE layer " << id.layer << " has a frame already";
  const int frame = choose_frame(layer);
  if (frame < 0) return frame;
  Frame& taken = frames_[static_cast<size_t>(frame)];
  if (taken.expert) frame_of_[counts_.index(*taken.expert)] = -1;
  taken.expert = id;
  frame_of_[counts_.index(id)] = frame;
  pin(frame);
  return frame;
}

int FrameTable::choose_frame(int layer) {
  candidates_.clear();
  candidate_frames_.clear();
  for (size_t frame = 0; frame < frames_.size(); ++frame) {
    if (frames_[frame].num_pins > 0) continue;
    if (!frames_[frame].expert) return static_cast<int>(frame);
    candidates_.push_back(*frames_[frame].expert);
    candidate_frames_.push_back(static_cast<int>(frame));
  }
  return candidates_.empty() ? -1 : candidate_frames_[policy_->choose(candidates_, layer)];
}

void FrameTable::pin(int frame) {
  if (frames_[static_cast<size_t>(frame)].num_pins++ == 0) ++num_pinned_;
}

void FrameTable::unpin(int frame) {
  Frame& pinned = frames_[static_cast<size_t>(frame)];
  CHECK_GT(pinned.num_pins, 0) << "frame " << frame << " is let go more often than it was held";
  if (--pinned.num_pins == 0) --num_pinned_;
}

void FrameTable::drop(int frame) {
  Frame& dropped = frames_[static_cast<size_t>(frame)];
  CHECK(dropped.expert && dropped.num_pins == 0);
  frame_of_[counts_.index(*dropped.expert)] = -1;
  dropped.expert.reset();
}

}  // namespace skipper
