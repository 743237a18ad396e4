// The routes that an audit file has recorded, as what a cache of experts would have met.
#pragma once

#include <cstdint>
#include <string>

#include "audit/audit_reader.h"
#include "residency/route_trace.h"

namespace skipper {

// Whose routes, of those in a file.
enum class RoutesOf : uint8_t { kAllTokens, kGeneratedTokens };

// One set for every layer of every step, of the experts that its tokens ran on: pairs that were skipped need none. Steps are told
// apart where layers begin anew, so that all requests have to be in the file (--audit_rate 1). A line that was cut off at the
// end is left out. Throws InvalidFile: no such routes in the file, or fewer than two MoE layers, whose steps look alike.
RouteTrace read_routes(AuditReader& reader, RoutesOf whose);

}  // namespace skipper
