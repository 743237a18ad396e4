#include "bench/known_routes.h"

#include <algorithm>
#include <limits>

namespace skipper {
namespace {

class BeladyEviction final : public EvictionPolicy {
 public:
  explicit BeladyEviction(const RouteCursor& cursor) : cursor_(cursor), uses_(cursor.trace.counts.total()) {
    for (size_t s = 0; s < cursor.trace.sets.size(); ++s) {
      const RouteSet& set = cursor.trace.sets[s];
      for (const int32_t expert : set.experts) {
        uses_[cursor.trace.counts.index({set.layer, expert})].push_back(static_cast<int64_t>(s));
      }
    }
  }

  void note_use(const ExpertId&) override {}

  size_t choose(std::span<const ExpertId> candidates, int) const override {
    const auto furthest = std::ranges::max_element(candidates, {}, [this](const ExpertId& id) { return next_use(id); });
    return static_cast<size_t>(furthest - candidates.begin());
  }

 private:
  int64_t next_use(const ExpertId& id) const {
    const std::vector<int64_t>& uses = uses_[cursor_.trace.counts.index(id)];
    const auto next = std::ranges::upper_bound(uses, cursor_.set);
    return next == uses.end() ? std::numeric_limits<int64_t>::max() : *next;
  }

  const RouteCursor& cursor_;
  std::vector<std::vector<int64_t>> uses_;  // by expert: sets, ascending
};

class OraclePredictor final : public ExpertPredictor {
 public:
  explicit OraclePredictor(const RouteCursor& cursor) : cursor_(cursor) {}

  void observe(int, std::span<const int32_t>) override {}
  std::vector<int32_t> predict(int, const Tensor&, size_t, Stream&) override {
    const RouteSet* next = cursor_.next();
    return next == nullptr ? std::vector<int32_t>() : next->experts;
  }

 private:
  const RouteCursor& cursor_;
};

class WrongPredictor final : public ExpertPredictor {
 public:
  explicit WrongPredictor(const RouteCursor& cursor) : cursor_(cursor) {}

  void observe(int, std::span<const int32_t>) override {}
  std::vector<int32_t> predict(int, const Tensor&, size_t count, Stream&) override {
    const RouteSet* next = cursor_.next();
    std::vector<int32_t> wrong;
    if (next == nullptr) return wrong;
    const int num_experts = cursor_.trace.counts.num_experts;
    for (int i = 0; i < num_experts && wrong.size() < count; ++i) {
      // A stride that is prime to any power of two walks through all experts.
      const auto expert = static_cast<int32_t>((cursor_.set * kStride + i) % num_experts);
      if (std::ranges::find(next->experts, expert) == next->experts.end()) wrong.push_back(expert);
    }
    return wrong;
  }

 private:
  static constexpr int64_t kStride = 23;
  const RouteCursor& cursor_;
};

}  // namespace

const RouteSet* RouteCursor::next() const {
  const int64_t after = set + 1;
  if (set < 0 || after >= static_cast<int64_t>(trace.sets.size())) return nullptr;
  const RouteSet& next = trace.sets[static_cast<size_t>(after)];
  return next.layer == 0 ? nullptr : &next;
}

std::unique_ptr<EvictionPolicy> make_belady_eviction(const RouteCursor& cursor) {
  return std::make_unique<BeladyEviction>(cursor);
}

std::unique_ptr<ExpertPredictor> make_oracle_predictor(const RouteCursor& cursor) {
  return std::make_unique<OraclePredictor>(cursor);
}

std::unique_ptr<ExpertPredictor> make_wrong_predictor(const RouteCursor& cursor) {
  return std::make_unique<WrongPredictor>(cursor);
}

}  // namespace skipper
