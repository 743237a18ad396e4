#include "tenancy/tenant_shares.h"

#include <algorithm>

#include "base/error.h"
#include "tenancy/fair_shares.h"

namespace skipper {
namespace {

ShareClaim claim_of(const TenantLedger& ledger, const PresentTenant& tenant) {
  const TenantState& state = tenant.state;
  const TenantEntry* entry = ledger.find(tenant.name);
  if (entry == nullptr) return {tenant.name, 1, state.held, state.held};
  const int64_t least = std::max(state.needs, std::min(entry->floor, state.demand));
  return {tenant.name, entry->weight, least, std::max(least, std::min(entry->ceiling, state.demand))};
}

std::vector<ShareClaim> claims_of(const TenantLedger& ledger, const std::vector<PresentTenant>& present) {
  std::vector<ShareClaim> claims;
  for (const PresentTenant& tenant : present) claims.push_back(claim_of(ledger, tenant));
  return claims;
}

// Nothing for those present: what they have in any case is counted as theirs.
int64_t floor_kept_for(const TenantEntry& entry, const std::vector<PresentTenant>& present) {
  return std::ranges::find(present, entry.name, &PresentTenant::name) == present.end() ? entry.floor : 0;
}

std::string advice(const TenantLedger& ledger, int64_t missing) {
  return "raise memory in " + ledger.path.string() + " by " + bytes_text(missing) + ", lower a floor, or end another tenant";
}

}  // namespace

std::vector<int64_t> shares_of(const TenantLedger& ledger, const std::vector<PresentTenant>& present) {
  return fair_shares(ledger.memory, claims_of(ledger, present));
}

int64_t lasting_share(const TenantLedger& ledger, const std::vector<PresentTenant>& present, const PresentTenant& newcomer) {
  std::vector<ShareClaim> claims = {claim_of(ledger, newcomer)};
  for (const TenantEntry& entry : ledger.tenants) {
    if (entry.name == newcomer.name) continue;
    const auto found = std::ranges::find(present, entry.name, &PresentTenant::name);
    const int64_t least = found == present.end() ? entry.floor : claim_of(ledger, *found).least;
    claims.push_back({entry.name, entry.weight, least, std::max(least, entry.ceiling)});
  }
  return fair_shares(ledger.memory, claims).front();
}

void require_admission(const TenantLedger& ledger, const std::vector<PresentTenant>& present, const PresentTenant& newcomer) {
  const ShareClaim own = claim_of(ledger, newcomer);
  const TenantEntry& entry = ledger.at(newcomer.name);
  if (own.least > entry.ceiling) {
    throw InvalidFile("tenant '" + newcomer.name + "': needs " + bytes_text(own.least) + " at least, " +
                      bytes_text(own.least - entry.ceiling) + " more than its ceiling of " + bytes_text(entry.ceiling) + " in " +
                      ledger.path.string() + "; raise the ceiling, or serve a smaller model or KV cache");
  }
  int64_t others = 0, floors = 0;
  for (const ShareClaim& claim : claims_of(ledger, present)) others += claim.least;
  for (const TenantEntry& tenant : ledger.tenants) {
    if (tenant.name != newcomer.name) floors += floor_kept_for(tenant, present);
  }
  const int64_t missing = own.least + others + floors - ledger.memory;
  if (missing <= 0) return;
  throw ResourceExhausted("tenant '" + newcomer.name + "': short by " + bytes_text(missing) + " of the " +
                          bytes_text(ledger.memory) + " that tenants share: it needs " + bytes_text(own.least) +
                          ", those present " + bytes_text(others) + ", the floors of absent ones " + bytes_text(floors) + "; " +
                          advice(ledger, missing));
}

}  // namespace skipper
