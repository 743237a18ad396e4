// Where experts were when an audit file was written: into its first line, and back.
#pragma once

#include "audit/routing_record.h"
#include "expert_parallel/expert_placement.h"

namespace skipper {

// Sets owners and shadow_errors to what the header's rank sees of `placement`; both stay empty for equal blocks without shadows.
void log_placement(const ExpertPlacement& placement, AuditHeader& header);

// Owners and shadows of a header that parse_audit_header() took. Slots are made up: no decision looks at them.
ExpertPlacement placement_of(const AuditHeader& header);

}  // namespace skipper
