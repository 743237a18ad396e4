// A ladder of operating points: what is measured at each, cleaned so that more skipping never comes with less loss.
#pragma once

#include <cstdint>
#include <vector>

#include "cluster/operating_point.h"
#include "evaluation/point_measurement.h"
#include "evaluation/step_time_model.h"

namespace skipper {

struct MeasuredPoint {
  double target = 0.0;  // the gain that was asked for; of a family, its parameter
  OperatingPoint point;
  PointMeasurement held_out;
};

// 0 to .88 of what skipping everything would gain; denser where the loss begins to rise.
const std::vector<double>& ladder_targets();

// What a higher level has more of: pairs skipped, or bytes saved, where pairs on shadows save them without being skipped.
enum class LadderOrder : uint8_t { kSkipRatio, kSavedBytes };

// The points in ascending order, without those that another beats: one that has at least as much at no more KL. So order and
// KL both ascend strictly. The first point stays, whatever beats it: level 0 is where quality is whole.
std::vector<MeasuredPoint> clean_ladder(std::vector<MeasuredPoint> points, LadderOrder order = LadderOrder::kSkipRatio);

}  // namespace skipper
