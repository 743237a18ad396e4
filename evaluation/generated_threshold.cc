#include "evaluation/generated_threshold.h"

#include <array>

namespace skipper {
namespace {

bool is_inside(const PhaseIndex& index, const GridSize& size) {
  return index.generated >= 0 && index.prompt.text < size.text && index.prompt.vision < size.vision;
}

std::array<PhaseIndex, 3> steps_from(const PhaseIndex& place) {
  const int less = place.generated - 1;
  const GridIndex prompt = place.prompt;
  return {{{prompt, less}, {{prompt.text + 1, prompt.vision}, less}, {{prompt.text, prompt.vision + 1}, less}}};
}

}  // namespace

PhaseIndex walk_generated_threshold(GridIndex start, const PointValue& value, const PhaseWalk& walk,
                                    const PhaseEvaluator& evaluate) {
  PhaseIndex place{start, start.text};
  double loss = value.loss;
  int num_evaluated = 0;
  const auto take_step = [&] {
    for (const PhaseIndex& next : steps_from(place)) {
      if (!is_inside(next, walk.size)) continue;
      if (num_evaluated == walk.most_evaluations) return false;
      ++num_evaluated;
      const PointValue found = evaluate(next);
      if (found.gain < walk.least_gain || found.loss >= loss) continue;
      place = next;
      loss = found.loss;
      return true;
    }
    return false;
  };
  while (take_step()) {
  }
  return place;
}

}  // namespace skipper
