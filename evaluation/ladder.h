// A ladder of operating points: what is measured at each, cleaned so that more skipping never comes with less loss.
#pragma once

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

// The points in ascending skip ratio, without those that another beats: one that skips at least as much at no more KL. So skip
// ratio and KL both ascend strictly. The first point stays, whatever beats it: level 0 is where quality is whole.
std::vector<MeasuredPoint> clean_ladder(std::vector<MeasuredPoint> points);

}  // namespace skipper
