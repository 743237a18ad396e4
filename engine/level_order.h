// Which levels skip more than others: what a ceiling of a service tier is measured by.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cluster/operating_point.h"

namespace skipper {

// Whether every pair that `gentle` skips would be skipped by `harsh` too, whatever the router says. False where their numbers do
// not tell: another pair rule or second score, other rules of batches, another way of weighting survivors.
bool skips_no_more(const OperatingPoint& gentle, const OperatingPoint& harsh);

// The first `num_ladder_levels` levels, those of the server's file, stand in their own order. A level that came later has the
// place of the lowest of them that surely skips as much, and stands above all of them when there is none.
std::vector<uint16_t> places_of(std::span<const OperatingPoint> levels, size_t num_ladder_levels);

}  // namespace skipper
