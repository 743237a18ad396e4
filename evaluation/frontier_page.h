// A frontier as one HTML page without outside resources: loss against what is saved, a curve per method, and a table.
#pragma once

#include <string>

#include "evaluation/frontier_run.h"

namespace skipper {

struct PageTitle {
  std::string model;
  std::string data;
  int num_ranks = 1;
};

// Well-formed XML. Each chart is one <svg class="chart"> with one <polyline class="curve"> per method that has a point with KL
// above 0: KL against the skip ratio and, where ranks exchange bytes, against the bytes saved. Readable on light and dark.
std::string to_page(const FrontierResult& result, const PageTitle& title);

}  // namespace skipper
