#include "residency/cache_replay.h"

#include <glog/logging.h>

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "residency/expert_transitions.h"
#include "residency/frame_table.h"

namespace skipper {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

// next_uses(trace)[s][i]: the set after s that needs expert i of set s again; kNever: none.
std::vector<std::vector<int64_t>> next_uses(const RouteTrace& trace) {
  std::vector<std::vector<int64_t>> result(trace.sets.size());
  std::vector<int64_t> next(trace.counts.total(), kNever);
  for (size_t s = trace.sets.size(); s-- > 0;) {
    const RouteSet& set = trace.sets[s];
    for (const int32_t expert : set.experts) {
      int64_t& use = next[trace.counts.index({set.layer, expert})];
      result[s].push_back(std::exchange(use, static_cast<int64_t>(s)));
    }
  }
  return result;
}

class RuleReplay {
 public:
  RuleReplay(const ExpertCounts& counts, int num_frames, EvictionRule rule) : frames_(num_frames, counts, rule) {}

  // `next` may be null: nothing is read ahead.
  int64_t run(const RouteSet& set, const RouteSet* next, int num_ahead) {
    held_.clear();
    int64_t num_hits = 0;
    for (const int32_t expert : set.experts) {
      const ExpertId id{set.layer, expert};
      frames_.note_use(id);
      const int frame = frames_.find(id);
      if (frame < 0) continue;
      hold(frame);
      ++num_hits;
    }
    for (const int32_t expert : set.experts) {
      if (frames_.find({set.layer, expert}) < 0) bring_in({set.layer, expert});
    }
    if (next != nullptr) read_ahead(*next, std::min(num_ahead, frames_.num_frames() / 2), set.layer);
    let_go();
    return num_hits;
  }

 private:
  // What is there stays there; the experts of the layer that runs are held.
  void read_ahead(const RouteSet& next, int num_ahead, int layer) {
    for (const int32_t expert : next.experts) {
      const int frame = frames_.find({next.layer, expert});
      if (frame >= 0) hold(frame);
    }
    for (const int32_t expert : next.experts) {
      if (num_ahead <= 0) return;
      if (frames_.find({next.layer, expert}) >= 0) continue;
      const int frame = frames_.take({next.layer, expert}, layer);
      if (frame < 0) return;
      held_.push_back(frame);
      --num_ahead;
    }
  }

  void hold(int frame) {
    frames_.pin(frame);
    held_.push_back(frame);
  }

  // Where all frames are held, the part of the layer that they hold has run.
  void bring_in(const ExpertId& id) {
    int frame = frames_.take(id, id.layer);
    if (frame < 0) {
      let_go();
      frame = frames_.take(id, id.layer);
    }
    held_.push_back(frame);
  }

  void let_go() {
    for (const int frame : held_) frames_.unpin(frame);
    held_.clear();
  }

  FrameTable frames_;
  std::vector<int> held_;
};

}  // namespace

ReplayResult replay_rule(const RouteTrace& trace, int num_frames, EvictionRule rule) {
  return replay_oracle(trace, num_frames, rule, 0);
}

ReplayResult replay_oracle(const RouteTrace& trace, int num_frames, EvictionRule rule, int num_ahead) {
  CHECK_GE(num_frames, 1);
  RuleReplay replay(trace.counts, num_frames, rule);
  ReplayResult result{.num_needs = trace.num_needs()};
  for (size_t s = 0; s < trace.sets.size(); ++s) {
    const RouteSet* next = num_ahead > 0 && s + 1 < trace.sets.size() ? &trace.sets[s + 1] : nullptr;
    result.num_hits += replay.run(trace.sets[s], next, num_ahead);
  }
  return result;
}

ReplayResult replay_optimum(const RouteTrace& trace, int num_frames) {
  CHECK_GE(num_frames, 1);
  const auto next = next_uses(trace);
  ReplayResult result{.num_needs = trace.num_needs()};
  std::set<std::pair<int64_t, size_t>> held;  // (next use, expert)
  for (size_t s = 0; s < trace.sets.size(); ++s) {
    const RouteSet& set = trace.sets[s];
    for (size_t i = 0; i < set.experts.size(); ++i) {
      const size_t expert = trace.counts.index({set.layer, set.experts[i]});
      result.num_hits += static_cast<int64_t>(held.erase({static_cast<int64_t>(s), expert}));
      if (next[s][i] != kNever) held.insert({next[s][i], expert});
    }
    while (held.size() > static_cast<size_t>(num_frames)) held.erase(std::prev(held.end()));
  }
  return result;
}

ForesightResult replay_transitions(const RouteTrace& trace) {
  ExpertTransitions transitions(trace.counts);
  ForesightResult result;
  for (const RouteSet& set : trace.sets) {
    const std::vector<int32_t> named = transitions.likely(set.layer, set.experts.size());
    for (const int32_t expert : named) result.num_named += std::ranges::count(set.experts, expert);
    if (!named.empty()) result.num_needs += static_cast<int64_t>(set.experts.size());
    transitions.observe(set.layer, set.experts);
  }
  return result;
}

}  // namespace skipper
