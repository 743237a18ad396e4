#include "tenancy/tenant_report.h"

#include <algorithm>

#include "base/error.h"
#include "base/printf_text.h"
#include "base/process_memory.h"
#include "tenancy/fair_shares.h"
#include "tenancy/tenant_shares.h"

namespace skipper {
namespace {

int64_t used_by(const TenantState& state) {
  int64_t sum = 0;
  for (const int64_t pid : state.pids) sum += resident_bytes(pid).value_or(0);
  return sum;
}

std::vector<TenantRow> rows_of(const TenantLedger& ledger, const std::vector<PresentTenant>& present) {
  std::vector<TenantRow> rows;
  for (const TenantEntry& entry : ledger.tenants) rows.push_back({.entry = entry});
  for (const PresentTenant& tenant : present) {
    if (ledger.find(tenant.name) == nullptr) rows.push_back({.entry = {.name = tenant.name}, .is_listed = false});
  }
  return rows;
}

const char* condition_of(const TenantRow& row) {
  if (!row.state) return "absent";
  if (row.is_over()) return "OVER ITS SHARE";
  if (!row.is_listed) return "not in the file";
  if (row.state->held == 0) return "waiting";
  if (row.state->held > row.share) return "shrinking";
  return row.state->held < row.share ? "growing" : "present";
}

std::string line_of(const TenantRow& row) {
  std::string line = printf_text("%-20s %6lld", row.entry.name.c_str(), static_cast<long long>(row.entry.weight));
  for (const int64_t size : {row.entry.floor, row.entry.ceiling}) line += printf_text(" %10s", bytes_text(size).c_str());
  if (!row.state) return line + printf_text(" %10s %10s %10s %10s %10s  %s\n", "-", "-", "-", "-", "-", condition_of(row));
  for (const int64_t size : {row.state->needs, row.state->demand, row.share, row.state->held, row.used}) {
    line += printf_text(" %10s", bytes_text(size).c_str());
  }
  return line + printf_text("  %s\n", condition_of(row));
}

struct Sums {
  int64_t shares = 0, held = 0, used = 0;
  std::vector<double> share_by_weight = {}, used_by_share = {};
};

Sums sums_of(const TenantReport& report) {
  Sums sums;
  for (const TenantRow& row : report.rows) {
    if (!row.state) continue;
    sums.shares += row.share;
    sums.held += row.state->held;
    sums.used += row.used;
    if (!row.is_listed || row.share == 0) continue;
    sums.share_by_weight.push_back(static_cast<double>(row.share) / static_cast<double>(row.entry.weight));
    sums.used_by_share.push_back(static_cast<double>(row.used) / static_cast<double>(row.share));
  }
  return sums;
}

}  // namespace

bool TenantRow::is_over() const {
  return state && state->held > 0 && static_cast<double>(used) > kShareLeeway * static_cast<double>(share);
}

bool TenantReport::is_exceeded() const {
  return std::ranges::any_of(rows, &TenantRow::is_over) || sums_of(*this).used > memory;
}

TenantReport report_tenants(const TenantLedger& ledger, const std::vector<PresentTenant>& present) {
  TenantReport report{.memory = ledger.memory, .shortage = {}, .rows = rows_of(ledger, present)};
  std::vector<int64_t> shares;
  for (const PresentTenant& tenant : present) shares.push_back(tenant.state.held);
  try {
    shares = shares_of(ledger, present);
  } catch (const ResourceExhausted& error) {
    report.shortage = error.what();
  }
  for (size_t i = 0; i < present.size(); ++i) {
    const auto is_of = [&](const TenantRow& row) { return row.entry.name == present[i].name; };
    const auto row = std::ranges::find_if(report.rows, is_of);
    row->state = present[i].state;
    row->share = shares[i];
    row->used = used_by(present[i].state);
  }
  return report;
}

std::string table_of(const TenantReport& report) {
  std::string table = printf_text("%-20s %6s %10s %10s %10s %10s %10s %10s %10s\n", "tenant", "weight", "floor", "ceiling",
                              "needs", "demand", "share", "held", "used");
  for (const TenantRow& row : report.rows) table += line_of(row);
  const Sums sums = sums_of(report);
  table += "of " + bytes_text(report.memory) + ": shares " + bytes_text(sums.shares) + ", held " + bytes_text(sums.held);
  table += ", used " + bytes_text(sums.used) + "\n";
  table += printf_text("Jain's index: %.4f of shares by weight, %.4f of memory used by share\n",
                   jain_index(sums.share_by_weight), jain_index(sums.used_by_share));
  if (!report.shortage.empty()) table += report.shortage + ": everybody keeps what it holds\n";
  return table;
}

}  // namespace skipper
