#include "planning/plan_steps.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "planning/memory_size.h"
#include "planning/plan_problem.h"

namespace skipper {
namespace {

using LayerBytes = std::vector<std::vector<size_t>>;  // [layer][rank]

LayerBytes no_bytes(const ExpertPlan& plan) {
  return LayerBytes(static_cast<size_t>(plan.subject.num_moe_layers),
                    std::vector<size_t>(static_cast<size_t>(plan.subject.world_size)));
}

size_t bytes_of(const ModelConfig& model, const ExpertCopy& copy) {
  return expert_bytes_in(model, copy.format, ComputePlace::kHost);
}

LayerBytes layer_bytes(const ModelConfig& model, const ExpertPlan& plan) {
  LayerBytes bytes = no_bytes(plan);
  for (const ExpertCopy& copy : plan.copies) {
    bytes[static_cast<size_t>(copy.id.layer)][static_cast<size_t>(copy.rank)] += bytes_of(model, copy);
  }
  return bytes;
}

std::vector<size_t> sum_of_layers(const LayerBytes& bytes) {
  std::vector<size_t> sums(bytes.front().size());
  for (const std::vector<size_t>& layer : bytes) {
    for (size_t rank = 0; rank < sums.size(); ++rank) sums[rank] += layer[rank];
  }
  return sums;
}

// A rank makes a layer anew when any of its experts there changes.
LayerBytes bytes_to_make(const PlanChange& change) {
  const LayerBytes wanted = layer_bytes(change.model, change.wanted);
  LayerBytes bytes = no_bytes(change.wanted);
  for (size_t i = 0; i < change.wanted.copies.size(); ++i) {
    const ExpertCopy& copy = change.wanted.copies[i];
    if (copy.format == change.serving.copies[i].format) continue;
    const auto layer = static_cast<size_t>(copy.id.layer), rank = static_cast<size_t>(copy.rank);
    bytes[layer][rank] = wanted[layer][rank];
  }
  return bytes;
}

int64_t sum_over_ranks(const std::vector<size_t>& bytes) {
  return static_cast<int64_t>(std::accumulate(bytes.begin(), bytes.end(), size_t{0}));
}

// Those that change, the one that gives back most first.
std::vector<size_t> layers_in_order(const PlanChange& change, const LayerBytes& to_make) {
  const LayerBytes before = layer_bytes(change.model, change.serving), after = layer_bytes(change.model, change.wanted);
  std::vector<size_t> layers;
  for (size_t layer = 0; layer < to_make.size(); ++layer) {
    if (sum_over_ranks(to_make[layer]) > 0) layers.push_back(layer);
  }
  const auto growth = [&](size_t layer) { return sum_over_ranks(after[layer]) - sum_over_ranks(before[layer]); };
  std::ranges::stable_sort(layers, {}, growth);
  return layers;
}

bool fits(const std::vector<size_t>& used, const std::vector<size_t>& more, const std::vector<size_t>& room) {
  for (size_t rank = 0; rank < room.size(); ++rank) {
    if (more[rank] > 0 && used[rank] + more[rank] > room[rank]) return false;
  }
  return true;
}

// Which layers are made in this step.
std::vector<bool> layers_that_fit(const PlanChange& change, const std::vector<size_t>& room) {
  const LayerBytes to_make = bytes_to_make(change);
  std::vector<size_t> used = sum_of_layers(layer_bytes(change.model, change.serving));
  std::vector<bool> is_made(to_make.size());
  for (const size_t layer : layers_in_order(change, to_make)) {
    if (!fits(used, to_make[layer], room)) continue;
    for (size_t rank = 0; rank < used.size(); ++rank) used[rank] += to_make[layer][rank];
    is_made[layer] = true;
  }
  return is_made;
}

// What its ranks use for experts, and what they may.
void count_memory(const ModelConfig& model, const std::vector<size_t>& room, ExpertPlan& plan) {
  for (size_t rank = 0; rank < plan.ranks.size(); ++rank) {
    TierBudget& host = plan.ranks[rank].tiers.at(MemoryTier::kHost);
    host.use.experts.clear();
    host.budget_bytes = host.use.fixed_bytes() + room[rank];
  }
  for (const ExpertCopy& copy : plan.copies) {
    MemoryUse& use = plan.ranks[static_cast<size_t>(copy.rank)].tiers.at(MemoryTier::kHost).use;
    use.experts[name_of(copy.format)] += bytes_of(model, copy);
  }
}

}  // namespace

bool same_formats(const ExpertPlan& one, const ExpertPlan& other) {
  return std::ranges::equal(one.copies, other.copies, {}, &ExpertCopy::format, &ExpertCopy::format);
}

size_t largest_layer_bytes(const ModelConfig& model, const ExpertPlan& plan) {
  size_t largest = 0;
  for (const std::vector<size_t>& layer : layer_bytes(model, plan)) largest = std::max(largest, std::ranges::max(layer));
  return largest;
}

ExpertPlan next_plan(const PlanChange& change, const std::vector<size_t>& room) {
  const std::vector<bool> is_made = layers_that_fit(change, room);
  ExpertPlan next = change.wanted;
  if (change.serving.predicted.loss > next.predicted.loss) next.predicted = change.serving.predicted;
  for (size_t i = 0; i < next.copies.size(); ++i) {
    if (!is_made[static_cast<size_t>(next.copies[i].id.layer)]) next.copies[i] = change.serving.copies[i];
  }
  if (same_formats(next, change.wanted)) return change.wanted;
  if (same_formats(next, change.serving)) {
    throw ResourceExhausted("no layer of the new experts fits beside those that serve in " + memory_text(std::ranges::min(room)) +
                            " for experts");
  }
  count_memory(change.model, room, next);
  return next;
}

}  // namespace skipper
