// The lines of an audit file as text, and back.
#pragma once

#include <string>
#include <string_view>
#include <variant>

#include "audit/routing_record.h"
#include "cluster/operating_point.h"

namespace skipper {

// Each is one JSON object and ends with a newline. Numbers read back as the bits they were.
std::string to_line(const AuditHeader& header);
// The table twice: to read, and encoded, as replay takes it.
std::string to_line(const LevelTable& levels);
std::string to_line(const RoutingRecord& record);

// `where` starts the message of errors ("audit.jsonl: line 3"). Throws InvalidFile: no audit file, another version.
AuditHeader parse_audit_header(std::string_view line, const std::string& where);

// What follows the first line. Throws InvalidFile: not JSON, a missing or impossible value, lists of different lengths.
using AuditEntry = std::variant<LevelTable, RoutingRecord>;
AuditEntry parse_audit_entry(std::string_view line, const AuditHeader& header, const std::string& where);

}  // namespace skipper
