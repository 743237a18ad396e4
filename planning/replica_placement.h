// Copies of one layer's experts on ranks, so that no rank takes much longer than the others and every copy fits.
//
// The stages of EPLB (github.com/deepseek-ai/EPLB), extended from equal experts to bytes and seconds: groups of experts to
// nodes by load, spare memory to further copies of whatever loads its copies most, copies to ranks by load. Experts of equal
// size that fill the ranks give EPLB's result. What is new: sizes differ, ranks may differ, a copy that is too large may be
// made in a lower format (a shadow), copies of an expert can be kept on different ranks, and swaps even out what packing by
// load leaves.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "planning/load_packing.h"

namespace skipper {

struct ReplicaExpert {
  double load = 0.0;         // seconds that all its copies take together
  int64_t bytes = 0;
  int64_t shadow_bytes = 0;  // of a further copy in a lower format; 0: none is made
};

struct ReplicaProblem {
  std::span<const ReplicaExpert> experts;
  std::span<const int64_t> rank_bytes;  // room on each rank; ranks of a node lie side by side
  int num_nodes = 1;                    // a divisor of the number of ranks
  // Of group-limited routing, a divisor of the number of experts. Groups stay whole where nodes divide them; otherwise nodes are
  // ignored.
  int num_groups = 1;
  SameKind copies = SameKind::kApart;  // kTogether: a rank may hold an expert twice, as with EPLB
};

struct ReplicaCopy {
  int32_t expert = 0;
  bool is_shadow = false;
  double load = 0.0;  // its part of the expert's

  friend bool operator==(const ReplicaCopy&, const ReplicaCopy&) = default;
};

struct ReplicaPlacement {
  std::vector<std::vector<ReplicaCopy>> ranks;  // in slot order

  double max_load() const;
};

// Every expert once, and further copies as far as the memory goes. Throws ResourceExhausted when not even one copy of each fits.
ReplicaPlacement place_replicas(const ReplicaProblem& problem);

// Exchanges pairs of copies between the fullest rank and others of its node while that makes the fullest less full and all fit.
void even_out(const ReplicaProblem& problem, ReplicaPlacement& placement);

}  // namespace skipper
