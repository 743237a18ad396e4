// Names for levels of skipping, by which losses measured at one are told from those at another.
#pragma once

#include <optional>
#include <string>

#include "cluster/operating_point.h"

namespace skipper {

// 16 hexadecimal digits over the numbers of a level; empty for one that skips nothing. Where a file lies does not matter.
std::string identity_of(const OperatingPoint& point);

// What is wrong with serving a level when a profile was measured at another, in one line; nothing where it is the same, or where
// the profile does not say.
std::optional<std::string> point_mismatch(const std::optional<std::string>& profiled, const OperatingPoint& served);

}  // namespace skipper
