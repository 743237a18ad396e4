#include "engine/reference_store.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"
#include "engine/sampler.h"

namespace skipper {
namespace {

std::ptrdiff_t most_probable(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

}  // namespace

ReferenceDistance distance_between(std::span<const float> reference, std::span<const float> logits) {
  const double reference_norm = log_sum_exp(reference);
  const double norm = log_sum_exp(logits);
  double kl = 0.0;
  for (size_t token = 0; token < reference.size(); ++token) {
    const double log_p = static_cast<double>(reference[token]) - reference_norm;
    const double log_q = static_cast<double>(logits[token]) - norm;
    const double p = std::exp(log_p);
    if (p != 0.0) kl += p * (log_p - log_q);
  }
  // Rounding can leave a sum of nearly nothing below zero; NaN stays.
  return {kl < 0.0 ? 0.0 : kl, most_probable(reference) == most_probable(logits) ? 0 : 1};
}

void ReferenceStore::keep(uint64_t id, std::span<const float> logits) {
  std::vector<float>& rows = references_.at(id);
  rows.insert(rows.end(), logits.begin(), logits.end());
}

ReferenceDistance ReferenceStore::compare(uint64_t id, int64_t row, std::span<const float> logits) const {
  const auto found = references_.find(id);
  const size_t begin = static_cast<size_t>(row) * logits.size();
  if (found == references_.end() || begin + logits.size() > found->second.size()) {
    throw Error("reference " + std::to_string(id) + ", token " + std::to_string(row) +
                ": not kept on this rank; score it with ReferenceUse::kKeep here first");
  }
  return distance_between(std::span(found->second).subspan(begin, logits.size()), logits);
}

}  // namespace skipper
