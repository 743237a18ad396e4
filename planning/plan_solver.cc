#include "planning/plan_solver.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <sstream>

#include "base/error.h"
#include "planning/memory_size.h"
#include "planning/option_table.h"
#include "planning/rank_assignment.h"
#include "planning/slowest_rank.h"

namespace skipper {
namespace {

constexpr double kUnbounded = std::numeric_limits<double>::infinity();
// What quality may give for time, of the least loss: without it nothing could move, as the last byte has its use.
constexpr double kLossForTime = 1e-3;

TierRoom room_of(const RankPlanMemory& rank) {
  TierRoom room{};
  for (const auto& [tier, budget] : rank.tiers) room[static_cast<size_t>(tier)] = left_for_experts(budget);
  return room;
}

TierRoom sum_of(std::span<const TierRoom> rooms) {
  TierRoom sum{};
  for (const TierRoom& room : rooms) {
    for (size_t tier = 0; tier < kNumMemoryTiers; ++tier) sum[tier] += room[tier];
  }
  return sum;
}

std::string number_text(double number) {
  std::ostringstream text;
  text << number;
  return text.str();
}

class Solver {
 public:
  explicit Solver(const PlanProblem& problem) : problem_(problem), table_(problem) {
    for (const RankPlanMemory& rank : problem.ranks) rooms_.push_back(room_of(rank));
  }

  ExpertPlan solve() {
    choose_for_group();
    assign();
    if (problem_.num_ranks() > 1) {
      for (int rank = 0; rank < problem_.num_ranks(); ++rank) choose_for_rank(rank);
    }
    return make();
  }

 private:
  std::vector<int32_t> all_experts() const {
    std::vector<int32_t> experts(table_.num_experts());
    std::iota(experts.begin(), experts.end(), 0);
    return experts;
  }

  bool has_several_tiers() const { return problem_.ranks.front().tiers.size() > 1; }

  double loss_of(std::span<const int32_t> experts) const {
    double loss = 0.0;
    for (const int32_t expert : experts) loss += table_.loss(expert, chosen_[static_cast<size_t>(expert)]);
    return loss;
  }

  // The ranks' memories as one: no placement on ranks can be better than this.
  void choose_for_group() {
    const std::vector<int32_t> experts = all_experts();
    const TierRoom room = sum_of(rooms_);
    const auto least_loss = table_.choose(experts, room, PlanCost::kLoss, kUnbounded);
    if (!least_loss) {
      throw ResourceExhausted("the experts do not fit in " + memory_text(room[0] + room[1] + room[2]) +
                              " however they are rounded; give more memory or more ranks");
    }
    group_ = *least_loss;
    certificate_.loss_bound = least_loss->bound;
    max_loss_ = least_loss->cost * (1.0 + kLossForTime);
    if (problem_.target == PlanTarget::kThroughput) {
      if (least_loss->bound > problem_.max_loss) refuse_loss(least_loss->cost);
      max_loss_ = std::max(problem_.max_loss, least_loss->cost);
    }
    if (problem_.target == PlanTarget::kThroughput || has_several_tiers()) choose_fastest(experts, room);
    chosen_ = group_.options;
    if (problem_.target == PlanTarget::kQuality) take_better_uniform(experts, room);
  }

  [[noreturn]] void refuse_loss(double least) const {
    throw ResourceExhausted("a predicted loss of " + number_text(problem_.max_loss) + " is out of reach of this memory, " +
                            "whose least is " + number_text(least) + "; raise --max_loss, or give more memory");
  }

  // Time depends on formats and tiers alone; what loses least and still fits remains the answer where nothing faster is found.
  void choose_fastest(std::span<const int32_t> experts, const TierRoom& room) {
    const auto fastest = table_.choose(experts, room, PlanCost::kTime, max_loss_);
    if (!fastest) return;
    group_ = *fastest;
    certificate_.seconds_bound = fastest->bound;
  }

  // A sum of losses may be wrong about mixtures, but what a uniform format loses was measured.
  void take_better_uniform(std::span<const int32_t> experts, const TierRoom& room) {
    if (has_several_tiers()) return;
    for (int32_t option = 0; option < static_cast<int32_t>(table_.options().size()); ++option) {
      const ExpertOption& uniform = table_.option(option);
      if (problem_.model.quantization || uniform.num_bytes * experts.size() > room[static_cast<size_t>(uniform.tier)]) continue;
      double loss = 0.0;
      for (const int32_t expert : experts) loss += table_.loss(expert, option);
      if (loss < loss_of(experts)) chosen_.assign(experts.size(), option);
    }
  }

  void assign() {
    ranks_ = problem_.owners;
    if (!ranks_.empty()) return;
    std::vector<RankedExpert> ranked;
    for (const int32_t expert : all_experts()) {
      const int32_t option = chosen_[static_cast<size_t>(expert)];
      ranked.push_back({table_.seconds(expert, option), table_.option(option).tier, table_.option(option).num_bytes});
    }
    ranks_ = assign_ranks(ranked, problem_.profile.num_moe_layers(), rooms_);
  }

  // Each rank spends its own budget on the experts it got, losing no more than they did.
  void choose_for_rank(int rank) {
    std::vector<int32_t> experts;
    for (const int32_t expert : all_experts()) {
      if (ranks_[static_cast<size_t>(expert)] == rank) experts.push_back(expert);
    }
    const TierRoom& room = rooms_[static_cast<size_t>(rank)];
    const bool is_for_time = problem_.target == PlanTarget::kThroughput || has_several_tiers();
    const double share = group_.options.empty() ? 1.0 : loss_of(experts) / std::max(loss_of(all_experts()), 1e-300);
    std::optional<OptionChoice> choice;
    if (is_for_time) choice = table_.choose(experts, room, PlanCost::kTime, share * max_loss_);
    if (!choice) choice = table_.choose(experts, room, PlanCost::kLoss, kUnbounded);
    if (!choice) {
      throw ResourceExhausted("rank " + std::to_string(rank) + " cannot hold its " + std::to_string(experts.size()) +
                              " experts however they are rounded; give it more memory, or use more ranks");
    }
    for (size_t i = 0; i < experts.size(); ++i) chosen_[static_cast<size_t>(experts[i])] = choice->options[i];
  }

  ExpertPlan make() {
    ExpertPlan plan;
    const int num_experts = problem_.profile.num_experts();
    plan.subject = {problem_.model.fingerprint, problem_.profile.num_moe_layers(), std::max(num_experts, 1),
                    problem_.num_ranks()};
    plan.ranks = problem_.ranks;
    std::vector<std::vector<int32_t>> next_slot(plan.ranks.size(),
                                                std::vector<int32_t>(static_cast<size_t>(plan.subject.num_moe_layers)));
    for (const int32_t expert : all_experts()) {
      const ExpertOption& option = table_.option(chosen_[static_cast<size_t>(expert)]);
      const int32_t rank = ranks_[static_cast<size_t>(expert)];
      const ExpertId id{expert / num_experts, expert % num_experts};
      int32_t& slot = next_slot[static_cast<size_t>(rank)][static_cast<size_t>(id.layer)];
      plan.copies.push_back({.id = id, .rank = rank, .slot = slot++, .format = option.format, .tier = option.tier,
                             .runs_on = option.runs_on});
      plan.ranks[static_cast<size_t>(rank)].tiers[option.tier].use.experts[name_of(option.format)] += option.num_bytes;
    }
    plan.predicted = predict();
    plan.certificate = certify(plan.predicted);
    plan.origin.target = problem_.target == PlanTarget::kQuality ? "quality" : "throughput";
    plan.origin.operating_point = problem_.profile.operating_point;
    plan.origin.profile = problem_.profile.basis == ProfileBasis::kMeasured ? "measured" : "analytic";
    check_expert_plan(plan, "the plan");
    return plan;
  }

  // Ranks read their experts of a layer at the same time, so a layer takes each token as long as the slowest of its ranks.
  PlanPrediction predict() const {
    PlanPrediction predicted;
    const std::vector<int32_t> experts = all_experts();
    const auto num_experts = static_cast<size_t>(std::max(problem_.profile.num_experts(), 1));
    std::vector<ExpertTime> layer;
    std::mt19937 generator;  // the same for every plan
    double bits = 0.0;
    for (size_t i = 0; i < experts.size(); ++i) {
      const ExpertOption& option = table_.option(chosen_[i]);
      predicted.bytes_per_token += table_.decode_use(experts[i]) * static_cast<double>(option.num_bytes);
      bits += option.format.bits_per_weight();
      layer.push_back({ranks_[i], table_.decode_use(experts[i]), option.seconds_per_use});
      if ((i + 1) % num_experts != 0) continue;
      predicted.seconds_per_token += mean_slowest_seconds(layer, problem_.num_ranks(), generator);
      layer.clear();
    }
    predicted.loss = loss_of(experts);
    predicted.expert_bits = experts.empty() ? 0.0 : bits / static_cast<double>(experts.size());
    const auto dense = static_cast<double>(problem_.dense_bytes);
    predicted.bytes_per_token += dense;
    const MachineRates& rates = problem_.rates;
    predicted.seconds_per_token +=
        dense / (problem_.has(MemoryTier::kDevice) ? rates.device : rates.host_rate(problem_.dense_format));
    if (problem_.num_ranks() > 1) {
      constexpr double kExchangesPerLayer = 2.0;  // dispatch and combine
      predicted.seconds_per_token += kExchangesPerLayer * problem_.profile.num_moe_layers() * rates.exchange_seconds;
    }
    return predicted;
  }

  PlanCertificate certify(const PlanPrediction& predicted) {
    PlanCertificate certificate = certificate_;
    double seconds = 0.0;
    for (const int32_t expert : all_experts()) seconds += table_.seconds(expert, chosen_[static_cast<size_t>(expert)]);
    const bool is_for_time = problem_.target == PlanTarget::kThroughput && certificate.seconds_bound > 0.0;
    const double cost = is_for_time ? seconds : predicted.loss;
    const double bound = is_for_time ? certificate.seconds_bound : certificate.loss_bound;
    certificate.gap = bound > 0.0 ? std::max(0.0, cost / bound - 1.0) : cost > 0.0 ? 1.0 : 0.0;
    if (group_.is_exact && problem_.num_ranks() == 1) certificate.method = "exact";
    return certificate;
  }

  const PlanProblem& problem_;
  OptionTable table_;
  std::vector<TierRoom> rooms_;  // [rank]
  OptionChoice group_;
  double max_loss_ = kUnbounded;
  PlanCertificate certificate_;
  std::vector<int32_t> chosen_;  // [expert] option
  std::vector<int32_t> ranks_;   // [expert]
};

}  // namespace

ExpertPlan make_plan(const PlanProblem& problem) {
  CHECK(!problem.ranks.empty());
  CHECK(problem.owners.empty() ||
        problem.owners.size() == static_cast<size_t>(problem.profile.num_moe_layers() * problem.profile.num_experts()));
  return Solver(problem).solve();
}

double uniform_loss_of(const PlanProblem& problem, const WeightFormat& format) {
  const std::vector<double> losses = expert_losses(problem.profile, format);
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // namespace skipper
