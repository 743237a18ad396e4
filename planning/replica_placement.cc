#include "planning/replica_placement.h"

#include <glog/logging.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "base/error.h"

namespace skipper {
namespace {

// A copy on its way to a rank.
struct Candidate {
  int32_t expert = 0;
  bool is_shadow = false;
};

int64_t sum(std::span<const int64_t> values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

// One node: its ranks and the experts that it got.
class NodePlacer {
 public:
  NodePlacer(const ReplicaProblem& problem, std::vector<int32_t> experts, std::span<const int64_t> rank_bytes)
      : problem_(problem), experts_(std::move(experts)), rank_bytes_(rank_bytes), num_copies_(problem.experts.size()) {}

  std::vector<std::vector<ReplicaCopy>> place() {
    for (const int32_t expert : experts_) add({expert, false});
    add_copies();
    Packing packing = pack_by_load(items(), rules());
    // Spare bytes in several places hold less than in one: fewer copies may fit where this many did not.
    while (!packing.left_over.empty() && candidates_.size() > experts_.size()) {
      drop_copies((candidates_.size() - experts_.size() + 1) / 2);
      packing = pack_by_load(items(), rules());
    }
    if (!packing.left_over.empty()) packing = pack_by_size();
    return copies_of(packing);
  }

 private:
  const ReplicaExpert& expert(const Candidate& candidate) const {
    return problem_.experts[static_cast<size_t>(candidate.expert)];
  }
  int64_t bytes_of(const Candidate& candidate) const {
    return candidate.is_shadow ? expert(candidate).shadow_bytes : expert(candidate).bytes;
  }
  double load_of(const Candidate& candidate) const {
    return expert(candidate).load / static_cast<double>(num_copies_[static_cast<size_t>(candidate.expert)]);
  }
  PackRules rules() const { return {.bin_bytes = rank_bytes_, .same_kind = problem_.copies}; }

  void add(const Candidate& candidate) {
    candidates_.push_back(candidate);
    ++num_copies_[static_cast<size_t>(candidate.expert)];
  }

  // One copy more of the expert whose copies are loaded most, until no spare byte can be used.
  void add_copies() {
    int64_t spare = sum(rank_bytes_);
    for (const Candidate& candidate : candidates_) spare -= bytes_of(candidate);
    std::vector<int32_t> open = experts_;
    while (!open.empty()) {
      const auto fullest = std::ranges::max_element(open, {}, [&](int32_t e) { return load_of({e, false}); });
      const auto copy = affordable_copy(*fullest, spare);
      if (!copy) {
        open.erase(fullest);
        continue;
      }
      spare -= bytes_of(*copy);
      add(*copy);
    }
  }

  std::optional<Candidate> affordable_copy(int32_t e, int64_t spare) const {
    const ReplicaExpert& wanted = problem_.experts[static_cast<size_t>(e)];
    const bool can_be_apart = num_copies_[static_cast<size_t>(e)] < rank_bytes_.size();
    if (problem_.copies == SameKind::kApart && !can_be_apart) return std::nullopt;
    // Copies of nothing would never end.
    if (wanted.bytes > 0 && wanted.bytes <= spare) return Candidate{e, false};
    if (wanted.shadow_bytes > 0 && wanted.shadow_bytes <= spare) return Candidate{e, true};
    return std::nullopt;
  }

  void drop_copies(size_t count) {
    for (; count > 0; --count) {
      --num_copies_[static_cast<size_t>(candidates_.back().expert)];
      candidates_.pop_back();
    }
  }

  std::vector<PackItem> items() const {
    std::vector<PackItem> items;
    for (const Candidate& candidate : candidates_) {
      items.push_back({.load = load_of(candidate), .bytes = bytes_of(candidate), .kind = candidate.expert});
    }
    return items;
  }

  // The large first, for they are hardest to place; loads are as even as that leaves them.
  Packing pack_by_size() const {
    std::vector<PackItem> by_size = items();
    for (PackItem& item : by_size) item.load = static_cast<double>(item.bytes);
    Packing packing = pack_by_load(by_size, rules());
    if (packing.left_over.empty()) return packing;
    int64_t missing = 0;
    for (const int32_t i : packing.left_over) missing += by_size[static_cast<size_t>(i)].bytes;
    throw ResourceExhausted(std::to_string(packing.left_over.size()) + " of " + std::to_string(experts_.size()) + " experts, " +
                            std::to_string(missing) + " bytes, fit on no rank; give more memory or lower formats");
  }

  std::vector<std::vector<ReplicaCopy>> copies_of(const Packing& packing) const {
    std::vector<std::vector<ReplicaCopy>> ranks;
    for (const std::vector<int32_t>& bin : packing.bins) {
      std::vector<ReplicaCopy>& rank = ranks.emplace_back();
      for (const int32_t i : bin) {
        const Candidate& candidate = candidates_[static_cast<size_t>(i)];
        rank.push_back({candidate.expert, candidate.is_shadow, load_of(candidate)});
      }
    }
    return ranks;
  }

  const ReplicaProblem& problem_;
  const std::vector<int32_t> experts_;
  const std::span<const int64_t> rank_bytes_;
  std::vector<size_t> num_copies_;     // [all experts]
  std::vector<Candidate> candidates_;  // first copies, then further ones in the order in which they were made
};

int num_nodes_used(const ReplicaProblem& problem) { return problem.num_groups % problem.num_nodes == 0 ? problem.num_nodes : 1; }

std::span<const int64_t> ranks_of_node(const ReplicaProblem& problem, int node) {
  const size_t count = problem.rank_bytes.size() / static_cast<size_t>(num_nodes_used(problem));
  return problem.rank_bytes.subspan(static_cast<size_t>(node) * count, count);
}

// Whole groups, as many to each node, by load. Bytes of a node are looked at when its ranks are filled.
std::vector<std::vector<int32_t>> experts_of_nodes(const ReplicaProblem& problem) {
  const auto num_nodes = static_cast<size_t>(num_nodes_used(problem));
  const size_t num_groups = num_nodes == 1 ? 1 : static_cast<size_t>(problem.num_groups);
  const size_t group_size = problem.experts.size() / num_groups;
  std::vector<PackItem> groups(num_groups);
  for (size_t e = 0; e < group_size * num_groups; ++e) groups[e / group_size].load += problem.experts[e].load;
  const std::vector<int64_t> no_bytes(num_nodes);
  const Packing packing =
      pack_by_load(groups, {.bin_bytes = no_bytes, .max_items_per_bin = static_cast<int64_t>(num_groups / num_nodes)});
  std::vector<std::vector<int32_t>> nodes(num_nodes);
  for (size_t node = 0; node < num_nodes; ++node) {
    for (const int32_t group : packing.bins[node]) {
      for (size_t i = 0; i < group_size; ++i) {
        nodes[node].push_back(group * static_cast<int32_t>(group_size) + static_cast<int32_t>(i));
      }
    }
  }
  return nodes;
}

double load_of(const std::vector<ReplicaCopy>& rank) {
  double load = 0.0;
  for (const ReplicaCopy& copy : rank) load += copy.load;
  return load;
}

bool holds(const std::vector<ReplicaCopy>& rank, int32_t expert) {
  return std::ranges::find(rank, expert, &ReplicaCopy::expert) != rank.end();
}

// The search of even_out() for one exchange.
class Exchange {
 public:
  Exchange(const ReplicaProblem& problem, ReplicaPlacement& placement) : problem_(problem), ranks_(placement.ranks) {}

  // The exchange that leaves the fuller of two ranks least full; false where none helps.
  bool make_best() {
    std::vector<double> loads;
    for (const auto& rank : ranks_) loads.push_back(load_of(rank));
    const auto full = static_cast<size_t>(std::ranges::max_element(loads) - loads.begin());
    double best_load = loads[full] * (1.0 - kLeastGain);
    ReplicaCopy *give = nullptr, *take = nullptr;
    for (size_t other = 0; other < ranks_.size(); ++other) {
      if (other == full || node_of(other) != node_of(full)) continue;
      for (ReplicaCopy& from : ranks_[full]) {
        for (ReplicaCopy& to : ranks_[other]) {
          const double moved = from.load - to.load;
          const double load = std::max(loads[full] - moved, loads[other] + moved);
          if (load >= best_load || !fits(full, from, to) || !fits(other, to, from)) continue;
          best_load = load;
          give = &from;
          take = &to;
        }
      }
    }
    if (give != nullptr) std::swap(*give, *take);
    return give != nullptr;
  }

 private:
  static constexpr double kLeastGain = 1e-9;

  size_t node_of(size_t rank) const { return rank * static_cast<size_t>(num_nodes_used(problem_)) / ranks_.size(); }

  int64_t bytes_of(const ReplicaCopy& copy) const {
    const ReplicaExpert& expert = problem_.experts[static_cast<size_t>(copy.expert)];
    return copy.is_shadow ? expert.shadow_bytes : expert.bytes;
  }

  bool fits(size_t rank, const ReplicaCopy& out, const ReplicaCopy& in) const {
    if (problem_.copies == SameKind::kApart && in.expert != out.expert && holds(ranks_[rank], in.expert)) return false;
    int64_t bytes = bytes_of(in) - bytes_of(out);
    for (const ReplicaCopy& copy : ranks_[rank]) bytes += bytes_of(copy);
    return bytes <= problem_.rank_bytes[rank];
  }

  const ReplicaProblem& problem_;
  std::vector<std::vector<ReplicaCopy>>& ranks_;
};

}  // namespace

double ReplicaPlacement::max_load() const {
  double most = 0.0;
  for (const auto& rank : ranks) most = std::max(most, load_of(rank));
  return most;
}

ReplicaPlacement place_replicas(const ReplicaProblem& problem) {
  CHECK(problem.num_nodes > 0 && problem.num_groups > 0 && !problem.rank_bytes.empty());
  CHECK_EQ(problem.rank_bytes.size() % static_cast<size_t>(problem.num_nodes), 0u);
  CHECK_EQ(problem.experts.size() % static_cast<size_t>(problem.num_groups), 0u);
  ReplicaPlacement placement;
  int node = 0;
  for (std::vector<int32_t>& experts : experts_of_nodes(problem)) {
    auto ranks = NodePlacer(problem, std::move(experts), ranks_of_node(problem, node++)).place();
    std::ranges::move(ranks, std::back_inserter(placement.ranks));
  }
  return placement;
}

void even_out(const ReplicaProblem& problem, ReplicaPlacement& placement) {
  // Each exchange lowers the fullest rank; the bound is for loads that differ by next to nothing.
  const size_t most_exchanges = 4 * problem.experts.size() + 16;
  Exchange exchange(problem, placement);
  for (size_t i = 0; i < most_exchanges && exchange.make_best(); ++i) {
  }
}

}  // namespace skipper
