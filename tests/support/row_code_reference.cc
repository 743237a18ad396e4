#include "tests/support/row_code_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace skipper {

namespace {

struct Candidate {
  double value;
  bool is_even;
};

// All values of the code, ascending. Neighbours of e4m3 differ by one in their bits, so ties go to even bits, as for int8.
std::vector<Candidate> candidates(RowCode code) {
  std::vector<Candidate> all;
  for (int bits = 0; bits < 256; ++bits) {
    const double value = value_of_code(code, static_cast<uint8_t>(bits));
    const bool is_used = !std::isnan(value) && !(code == RowCode::kInt8 && bits == 0x80);
    if (is_used) all.push_back({value, bits % 2 == 0});
  }
  std::ranges::sort(all, {}, &Candidate::value);
  return all;
}

double nearest(const std::vector<Candidate>& all, double value) {
  const auto above = std::ranges::lower_bound(all, value, {}, &Candidate::value);
  if (above == all.begin()) return above->value;
  const auto below = above - 1;
  if (above == all.end()) return below->value;
  const double up = above->value - value, down = value - below->value;
  if (up != down) return up < down ? above->value : below->value;
  return above->is_even ? above->value : below->value;
}

std::vector<float> reference_block(RowCode code, std::span<const float> block) {
  const float largest = code == RowCode::kInt8 ? 127.0f : 448.0f;
  float maximum = 0;
  for (const float value : block) {
    if (!std::isfinite(value)) return std::vector<float>(block.size(), std::numeric_limits<float>::quiet_NaN());
    maximum = std::max(maximum, std::abs(value));
  }
  if (maximum < 0x1p-116f) return std::vector<float>(block.size(), 0.0f);
  const auto all = candidates(code);
  std::vector<float> decoded;
  for (const float value : block) {
    decoded.push_back(static_cast<float>(nearest(all, value * (largest / maximum))) * (maximum / largest));
  }
  return decoded;
}

}  // namespace

double value_of_code(RowCode code, uint8_t bits) {
  if (code == RowCode::kInt8) return static_cast<int8_t>(bits);
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<double>::quiet_NaN();
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

std::vector<float> reference_coded_row(RowCode code, std::span<const float> row) {
  std::vector<float> decoded;
  for (size_t begin = 0; begin < row.size(); begin += kRowCodeBlock) {
    const auto block = row.subspan(begin, std::min<size_t>(kRowCodeBlock, row.size() - begin));
    std::ranges::copy(reference_block(code, block), std::back_inserter(decoded));
  }
  return decoded;
}

}  // namespace skipper
