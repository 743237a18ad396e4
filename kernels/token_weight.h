// How likely a token is beside the likeliest, in integers: one definition for the host and for GPUs, so that both draw the same.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define SKIPPER_BOTH_DEVICES __host__ __device__
#else
#define SKIPPER_BOTH_DEVICES
#endif

namespace skipper::token_sampling {

inline constexpr int kDistanceBits = 24;  // of the fraction of a bit
inline constexpr int kWeightBits = 40;
inline constexpr uint32_t kImpossible = 0xffffffffu;
inline constexpr uint32_t kMostDistance = static_cast<uint32_t>(kWeightBits) << kDistanceBits;
inline constexpr float kUnitsPerNat = 24204406.0f;  // 2²⁴ · log₂ e

// 1 − 2^−f = f · (a − f · (b − f · (c − ...))) for f in [0, 1): minimax, relative error of 2^−f 3·10⁻⁹. In units of 2⁻³².
inline constexpr uint32_t kPowerA = 2977043973u, kPowerB = 1031755804u, kPowerC = 238330987u, kPowerD = 41142264u,
                          kPowerE = 5475003u, kPowerF = 468251u;

// How many bits less likely than the largest, or kImpossible. A difference and a product: there is nothing to fuse.
SKIPPER_BOTH_DEVICES inline uint32_t distance_of(float logit, float largest, float units_per_logit) {
  if (logit == largest) return 0;
  const float distance = (largest - logit) * units_per_logit;
  return distance <= static_cast<float>(kMostDistance) ? static_cast<uint32_t>(distance) : kImpossible;
}

// a · b, both in units of 2⁻³².
SKIPPER_BOTH_DEVICES inline uint32_t product(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }

SKIPPER_BOTH_DEVICES inline uint64_t weight_of(uint32_t distance) {
  const uint32_t fraction = distance << (32 - kDistanceBits);
  uint32_t power = kPowerE - product(fraction, kPowerF);
  power = kPowerD - product(fraction, power);
  power = kPowerC - product(fraction, power);
  power = kPowerB - product(fraction, power);
  power = kPowerA - product(fraction, power);
  const uint64_t one = uint64_t{1} << kWeightBits;
  return (one - (uint64_t{fraction} * power >> (64 - kWeightBits))) >> (distance >> kDistanceBits);
}

}  // namespace skipper::token_sampling
