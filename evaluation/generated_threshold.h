// A threshold of their own for generated tokens: a walk from the best pair of thresholds to a lower loss at no less gain.
#pragma once

#include <compare>
#include <functional>

#include "evaluation/frontier_search.h"

namespace skipper {

// Positions in the ascending lists of thresholds; that of generated tokens is in the list of text.
struct PhaseIndex {
  GridIndex prompt;
  int generated = 0;

  auto operator<=>(const PhaseIndex&) const = default;
};

// What one pass over the data finds at a point. Is asked for a point once.
using PhaseEvaluator = std::function<PointValue(const PhaseIndex&)>;

struct PhaseWalk {
  GridSize size;
  double least_gain = 0.0;
  int most_evaluations = 0;
};

// Generated tokens are few, and every one of them is read: it can pay to skip less of them and more of the prompt. From
// `start`, at which generated tokens have the threshold of text, with `value`, each step takes the first of these that has the
// gain and loses less than the place where it stands:
//   one threshold less for generated tokens; the same, and one more for text of the prompt; the same, and one more for vision.
// Ends where none does, or after so many evaluations. Never returns a point that loses more than `start` or gains too little.
PhaseIndex walk_generated_threshold(GridIndex start, const PointValue& value, const PhaseWalk& walk,
                                    const PhaseEvaluator& evaluate);

}  // namespace skipper
