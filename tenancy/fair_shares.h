// Weighted max-min fair division of memory among tenants, exact in bytes, and Jain's index of how fair a division is.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace skipper {

inline constexpr int64_t kMostShareWeight = 10'000;         // as cgroup v2 has it
inline constexpr int64_t kMostShareBytes = int64_t{1} << 48;  // so that bytes · weight stays within 64 bits

// What one tenant may have. Names differ.
struct ShareClaim {
  std::string name;
  int64_t weight = 1;  // 1 to kMostShareWeight
  int64_t least = 0;   // bytes that it has in any case
  int64_t most = 0;    // bytes beyond which more is of no use, or not allowed; not under `least`
};

// The shares, in the order of the claims. No share can grow but at the cost of one whose bytes per weight are no more: water
// filling, between `least` and `most` of each (Bertsekas and Gallager, Data Networks, section 6.5.2). Every byte is given out, or
// all have their `most`. What each gets does not depend on the order of the claims, and never falls when `total` grows.
//
//   total 600, claims (weight 2, 0 to 500), (weight 1, 0 to 500), (weight 1, 0 to 80): shares 346, 174, 80
//
// Throws ResourceExhausted where the sum of `least` is more than `total`, at most kMostShareBytes.
std::vector<int64_t> fair_shares(int64_t total, std::span<const ShareClaim> claims);

// "2.50 GB", of what is not negative.
std::string bytes_text(int64_t num_bytes);

// (Σx)² / (n · Σx²): 1 when all are equal, 1/n when one has everything (Jain, Chiu, Hawe: DEC-TR-301, 1984). 1 without values,
// and where all are 0.
double jain_index(std::span<const double> values);

}  // namespace skipper
