// The tenants of a ledger as a table for people: rights, shares, what each uses, and how fair that is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tenancy/tenant_ledger.h"
#include "tenancy/tenant_registry.h"

namespace skipper {

// What a tenant may use over its share before it counts as over: 2 %, of pages that other processes have as well.
inline constexpr double kShareLeeway = 1.02;

struct TenantRow {
  TenantEntry entry;
  bool is_listed = true;                     // in the ledger
  std::optional<TenantState> state = {};     // of one that is present
  int64_t share = 0;
  int64_t used = 0;                          // resident bytes of all its ranks

  // One that still waits for its share has none to exceed.
  bool is_over() const;
};

struct TenantReport {
  int64_t memory = 0;
  std::string shortage;  // why nobody is due more or less than it holds; empty: shares are what tenants are due
  std::vector<TenantRow> rows;  // in the ledger's order, behind them those present without being in it

  // Whether a present tenant uses more than its share, or all together more than the memory.
  bool is_exceeded() const;
};

// Asks the kernel what the present ones use.
TenantReport report_tenants(const TenantLedger& ledger, const std::vector<PresentTenant>& present);

// The table; below it the sums and Jain's index of shares by weight and of memory used by share.
std::string table_of(const TenantReport& report);

}  // namespace skipper
