// Reads an audit file from its header to its end, line by line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "audit/audit_lines.h"

namespace skipper {

class AuditReader {
 public:
  // Throws InvalidFile: missing, not an audit file, another version.
  explicit AuditReader(const std::filesystem::path& path);

  const AuditHeader& header() const { return header_; }
  // Nothing at the end. A last line that was cut off, as by a killed server, is left out. Throws InvalidFile.
  std::optional<AuditEntry> next();
  // "audit.jsonl: line 3": of the entry read last.
  std::string where() const { return name_ + ": line " + std::to_string(line_number_); }
  // After the end.
  bool last_line_was_cut_off() const { return last_line_was_cut_off_; }

 private:
  const std::string name_;
  std::ifstream file_;
  int64_t line_number_ = 0;
  AuditHeader header_;
  bool last_line_was_cut_off_ = false;
};

}  // namespace skipper
