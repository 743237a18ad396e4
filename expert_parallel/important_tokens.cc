#include "expert_parallel/important_tokens.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace skipper {

namespace {

// The share that a prompt token's level protects; 0 for generated tokens.
float protected_share(const LevelTable& levels, const TokenPolicies& policies, int64_t row) {
  if (TokenPhase{policies.phase.data<uint8_t>()[row]} == TokenPhase::kGenerated) return 0.0f;
  const size_t level = policies.level.data<uint8_t>()[row];
  CHECK_LT(level, levels.levels.size());
  return levels.levels[level].protect_attention;
}

bool may_skip(const TokenPolicies& policies, int64_t row) {
  return TokenClass{policies.token_class.data<uint8_t>()[row]} != TokenClass::kProtected;
}

// Rows from `begin` on of one sequence under one level; all tokens of a request are.
RowRange prompt_at(const ImportanceInput& input, int64_t begin) {
  const int32_t* sequence = input.sequence_index.data<int32_t>();
  const uint8_t* level = input.policies.level.data<uint8_t>();
  const uint8_t* phase = input.policies.phase.data<uint8_t>();
  int64_t end = begin + 1;
  const int64_t num_rows = input.policies.num_tokens();
  const auto is_of_it = [&](int64_t row) {
    return sequence[row] == sequence[begin] && level[row] == level[begin] && phase[row] == phase[begin];
  };
  while (end < num_rows && is_of_it(end)) ++end;
  return {begin, end};
}

float absolute_sum(std::span<const float> values) {
  float sum = 0.0f;
  for (const float value : values) sum += std::abs(value);
  return sum;
}

struct ScoredRow {
  float score = 0.0f;
  int64_t row = 0;
};

bool is_more_important(const ScoredRow& one, const ScoredRow& other) {
  return one.score > other.score || (one.score == other.score && one.row < other.row);
}

// A score that is no number counts as none.
const std::vector<ScoredRow>& scored_rows(const ImportanceInput& input, const RowRange& rows, std::span<const float> received) {
  static thread_local std::vector<ScoredRow> scored;
  scored.clear();
  const auto width = static_cast<size_t>(input.hidden.row_elements());
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    if (!may_skip(input.policies, row)) continue;
    const float score = received[static_cast<size_t>(row - rows.begin)] * absolute_sum({input.hidden.row<float>(row), width});
    scored.push_back({std::isnan(score) ? 0.0f : score, row});
  }
  std::ranges::sort(scored, is_more_important);
  return scored;
}

}  // namespace

bool any_token_is_protected_by_attention(const LevelTable& levels, const TokenPolicies& policies) {
  const auto protects_none = [](const OperatingPoint& point) { return point.protect_attention == 0.0f; };
  if (std::ranges::all_of(levels.levels, protects_none)) return false;
  for (int64_t row = 0; row < policies.num_tokens(); ++row) {
    if (protected_share(levels, policies, row) > 0.0f) return true;
  }
  return false;
}

void mark_important_tokens(const ImportanceInput& input, const ReceivedAttention& received_by, std::span<uint8_t> marks) {
  static thread_local std::vector<float> received;
  std::ranges::fill(marks, uint8_t{0});
  for (RowRange rows; rows.end < input.policies.num_tokens();) {
    rows = prompt_at(input, rows.end);
    const float share = protected_share(input.levels, input.policies, rows.begin);
    if (share == 0.0f) continue;
    received.resize(static_cast<size_t>(rows.size()));
    received_by(rows, received);
    const std::vector<ScoredRow>& scored = scored_rows(input, rows, received);
    const auto num_marked = static_cast<size_t>(std::ceil(share * static_cast<float>(scored.size())));
    for (size_t i = 0; i < std::min(num_marked, scored.size()); ++i) marks[static_cast<size_t>(scored[i].row)] = 1;
  }
}

}  // namespace skipper
