// What each tenant of a ledger is due, by who is there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tenancy/tenant_ledger.h"
#include "tenancy/tenant_registry.h"

namespace skipper {

// Of the tenants that are present, in their order: the memory divided by weight. Each has what it needs and its floor, as far as
// its demand goes, and nothing beyond its ceiling or demand. A tenant that is not in the ledger (any more) keeps what it holds.
// Throws ResourceExhausted, "short by X", where the ledger's memory is less than that.
std::vector<int64_t> shares_of(const TenantLedger& ledger, const std::vector<PresentTenant>& present);

// A tenant that cannot change its plan while it serves has what would be its share beside all tenants of the ledger, each as
// hungry as its ceiling allows: it can keep that whoever comes. `present` is without it.
int64_t lasting_share(const TenantLedger& ledger, const std::vector<PresentTenant>& present, const PresentTenant& newcomer);

// Floors are promises: what the tenants present cannot do without leaves room for the floors of those that are absent. Throws
// ResourceExhausted naming the newcomer and what it is short by; `present` is without it. InvalidFile when its ceiling is less
// than it needs.
void require_admission(const TenantLedger& ledger, const std::vector<PresentTenant>& present, const PresentTenant& newcomer);

}  // namespace skipper
