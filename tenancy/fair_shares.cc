#include "tenancy/fair_shares.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "base/error.h"
#include "planning/memory_size.h"

namespace skipper {
namespace {

int64_t sum_of(const std::vector<int64_t>& shares) { return std::accumulate(shares.begin(), shares.end(), int64_t{0}); }

// What each has when the water stands at `level` bytes per weight.
std::vector<int64_t> filled_to(int64_t level, std::span<const ShareClaim> claims) {
  std::vector<int64_t> shares;
  for (const ShareClaim& claim : claims) shares.push_back(std::clamp(level * claim.weight, claim.least, claim.most));
  return shares;
}

// The highest whole level that `total` reaches.
int64_t level_within(int64_t total, std::span<const ShareClaim> claims) {
  int64_t low = 0, high = total;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (sum_of(filled_to(middle, claims)) <= total) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// Fewer bytes per weight; of equal ones the smaller weight, whose next byte lifts it higher.
bool is_poorer(const ShareClaim& a, int64_t share_a, const ShareClaim& b, int64_t share_b) {
  const int64_t level_a = share_a * b.weight, level_b = share_b * a.weight;
  return std::tie(level_a, a.weight, a.name) < std::tie(level_b, b.weight, b.name);
}

// The poorest that may have more; claims.size() when all have their most.
size_t poorest(std::span<const ShareClaim> claims, const std::vector<int64_t>& shares) {
  size_t found = claims.size();
  for (size_t i = 0; i < claims.size(); ++i) {
    if (shares[i] == claims[i].most) continue;
    if (found == claims.size() || is_poorer(claims[i], shares[i], claims[found], shares[found])) found = i;
  }
  return found;
}

}  // namespace

std::vector<int64_t> fair_shares(int64_t total, std::span<const ShareClaim> claims) {
  std::vector<int64_t> shares = filled_to(0, claims);
  if (sum_of(shares) > total) {
    throw ResourceExhausted("short by " + bytes_text(sum_of(shares) - total) + " for what tenants have in any case");
  }
  // To give byte for byte to the poorest comes past every whole level; less than the sum of weights is left after the last.
  shares = filled_to(level_within(total, claims), claims);
  for (int64_t left = total - sum_of(shares); left > 0; --left) {
    const size_t next = poorest(claims, shares);
    if (next == claims.size()) break;
    ++shares[next];
  }
  return shares;
}

std::string bytes_text(int64_t num_bytes) { return memory_text(static_cast<size_t>(num_bytes)); }

double jain_index(std::span<const double> values) {
  double sum = 0.0, sum_of_squares = 0.0;
  for (const double value : values) {
    sum += value;
    sum_of_squares += value * value;
  }
  return sum_of_squares == 0.0 ? 1.0 : sum * sum / (static_cast<double>(values.size()) * sum_of_squares);
}

}  // namespace skipper
