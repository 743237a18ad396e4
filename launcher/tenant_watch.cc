#include "launcher/tenant_watch.h"

#include <glog/logging.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "base/error.h"
#include "launcher/served_plan.h"
#include "planning/plan_steps.h"
#include "tenancy/fair_shares.h"

namespace skipper {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kBetweenLooks{200};
// After a change that failed: what it failed for may pass.
constexpr std::chrono::milliseconds kBeforeAnotherTry{5000};
constexpr std::chrono::milliseconds kStepDeadline{60'000};

// What each rank has for experts, of so much memory.
std::vector<size_t> rooms_of(const ExpertPlan& plan, int64_t memory_per_rank) {
  std::vector<size_t> rooms;
  for (const RankPlanMemory& rank : plan.ranks) {
    const size_t fixed = rank.tiers.at(MemoryTier::kHost).use.fixed_bytes();
    rooms.push_back(static_cast<size_t>(memory_per_rank) - std::min(static_cast<size_t>(memory_per_rank), fixed));
  }
  return rooms;
}

}  // namespace

TenantWatch::TenantWatch(RankProcess& process, Engine& engine)
    : process_(process),
      engine_(engine),
      member_(*process.tenant()->follower()),
      needs_(process.tenant()->needs()),
      serving_(process.first_plan()),
      share_(member_.held()),
      thread_([this] { run(); }) {}

TenantWatch::~TenantWatch() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  ending_.notify_one();
  thread_.join();
}

bool TenantWatch::wait(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  return !ending_.wait_for(lock, patience, [this] { return is_ending_; });
}

void TenantWatch::run() {
  std::chrono::milliseconds patience = kBetweenLooks;
  while (wait(patience)) {
    patience = kBetweenLooks;
    try {
      if (const auto share = member_.wanted()) follow(*share);
    } catch (const Error& error) {
      LOG(WARNING) << "tenant=" << member_.name() << " could not change to its share: " << error.what();
      patience = kBeforeAnotherTry;
    }
  }
}

// A share that is more is held before it is taken: where it cannot be taken it is given back.
void TenantWatch::follow(int64_t share) {
  const auto start = Clock::now();
  int num_steps = 0;
  try {
    num_steps = change_experts(share);
  } catch (const Error&) {
    if (share > share_) member_.settle(share_);
    throw;
  }
  member_.settle(share);
  LOG(INFO) << "tenant=" << member_.name() << " share=" << bytes_text(share) << " before=" << bytes_text(share_)
            << " steps=" << num_steps << " seconds=" << std::chrono::duration<double>(Clock::now() - start).count()
            << " loss=" << serving_.predicted.loss << " expert_bits=" << serving_.predicted.expert_bits;
  share_ = share;
}

// Returns the number of switches that it took.
int TenantWatch::change_experts(int64_t share) {
  const std::string memory = std::to_string(share / process_.world_size() - needs_.staging);
  const ExpertPlan wanted = process_.read_plan(process_.plan_for_memory(memory).text);
  const std::vector<size_t> rooms = rooms_of(wanted, std::max(share_, share) / process_.world_size());
  int num_steps = 0;
  for (; !same_formats(serving_, wanted); ++num_steps) {
    switch_to(next_plan({process_.model_config(), serving_, wanted}, rooms), "memory:" + memory);
  }
  return num_steps;
}

void TenantWatch::switch_to(const ExpertPlan& plan, const std::string& name) {
  SwitchRequest wish{.policy = name, .deadline = kStepDeadline, .extra_bytes = static_cast<size_t>(needs_.staging), .plan = {}};
  wish.plan = PostedPlan{.policy = traits_of(plan), .text = to_json(plan)};
  wish.plan->policy.name = name;
  const uint64_t number = engine_.switch_experts(std::move(wish));
  const SwitchState state = engine_.expert_switch().wait_until_ended(number);
  if (!state.last.failure.empty()) throw Cancelled(state.last.failure);
  serving_ = plan;
  if (!state.last.freed_seconds) throw Cancelled("the old experts were not freed in time");
}

}  // namespace skipper
