// `skipper tenants`: the servers that share this host's memory, as a table.
#pragma once

#include "launcher/flags.h"

namespace skipper {

// Prints to standard output. Throws InvalidFile for the ledger or the registry, ResourceExhausted, after the table, when a tenant
// uses more than its share or all together more than the memory.
int run_tenants(const CommandLine& line);

}  // namespace skipper
