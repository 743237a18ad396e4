#include "tenancy/tenant_member.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "tenancy/fair_shares.h"

namespace skipper {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

TenantMember::TenantMember(const std::filesystem::path& ledger, const std::string& name, const TenantNeeds& needs,
                           std::vector<int64_t> pids)
    : path_(ledger), name_(name), registry_(ledger), ledger_(load_tenant_ledger(ledger)) {
  ledger_.at(name);
  state_ = {.pids = std::move(pids), .needs = needs.needs, .demand = std::max(needs.needs, needs.demand)};
  const FileLock lock = registry_.lock();
  const std::vector<PresentTenant> others = registry_.present();
  place_ = registry_.claim(name, 0);
  require_admission(ledger_, others, {name, state_});
  if (!needs.can_replan) state_.needs = state_.demand = lasting_share(ledger_, others, {name, state_});
  registry_.write(name, state_);
}

int64_t TenantMember::wait_for_share(const std::function<void(const TenantWait&)>& pause) {
  const Clock::time_point deadline = Clock::now() + ledger_.patience;
  while (true) {
    const Look now = look();
    if (now.is_granted) return now.share;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    const TenantWait wait{.share = now.share, .missing = now.share - now.room, .left = left};
    if (left.count() <= 0) {
      throw ResourceExhausted("tenant '" + name_ + "': short by " + bytes_text(wait.missing) + " of its share of " +
                              bytes_text(wait.share) + ", which other tenants have not given back within " +
                              std::to_string(ledger_.patience.count()) + " s; see 'skipper tenants --tenants " + path_.string() +
                              "', raise wait_seconds there, or end another tenant");
    }
    pause(wait);
  }
}

std::optional<int64_t> TenantMember::wanted() {
  try {
    ledger_ = load_tenant_ledger(path_);
    const Look now = look();
    complaint_.clear();
    if (now.share < state_.held || now.is_granted) return now.share;
  } catch (const Error& error) {
    if (complaint_ != error.what()) LOG(WARNING) << "tenant=" << name_ << " keeps its share: " << error.what();
    complaint_ = error.what();
  }
  return std::nullopt;
}

void TenantMember::settle(int64_t num_bytes) {
  const FileLock lock = registry_.lock();
  hold(num_bytes);
}

TenantMember::Look TenantMember::look() {
  const FileLock lock = registry_.lock();
  const std::vector<PresentTenant> present = registry_.present();
  const std::vector<int64_t> shares = shares_of(ledger_, present);
  Look now{.room = ledger_.memory};
  for (size_t i = 0; i < present.size(); ++i) {
    if (present[i].name == name_) {
      now.share = shares[i];
    } else {
      now.room -= present[i].state.held;
    }
  }
  now.is_granted = now.share > state_.held && now.share <= now.room;
  if (now.is_granted) hold(now.share);
  return now;
}

void TenantMember::hold(int64_t num_bytes) {
  TenantState changed = state_;
  changed.held = num_bytes;
  registry_.write(name_, changed);
  state_ = changed;
}

}  // namespace skipper
