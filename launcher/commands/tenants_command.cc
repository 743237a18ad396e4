#include "launcher/commands/tenants_command.h"

#include <cstdio>
#include <string>

#include "base/error.h"
#include "tenancy/fair_shares.h"
#include "tenancy/tenant_report.h"

namespace skipper {
namespace {

TenantReport report_of(const std::string& path) {
  const TenantLedger ledger = load_tenant_ledger(path);
  const TenantRegistry registry(path);
  const FileLock lock = registry.lock_to_read();
  return report_tenants(ledger, registry.present());
}

void require_within_shares(const TenantReport& report) {
  if (!report.is_exceeded()) return;
  for (const TenantRow& row : report.rows) {
    if (!row.is_over()) continue;
    throw ResourceExhausted("tenant '" + row.entry.name + "' uses " + bytes_text(row.used) +
                            ", more than its share of " + bytes_text(row.share));
  }
  throw ResourceExhausted("tenants use more than the " + bytes_text(report.memory) + " that they share");
}

}  // namespace

int run_tenants(const CommandLine& line) {
  const TenantReport report = report_of(line.tenants);
  std::fputs(table_of(report).c_str(), stdout);
  std::fflush(stdout);
  require_within_shares(report);
  return 0;
}

}  // namespace skipper
