#include "audit/audit_reader.h"

#include "base/error.h"

namespace skipper {

AuditReader::AuditReader(const std::filesystem::path& path) : name_(path.string()), file_(path, std::ios::binary) {
  std::string line;
  ++line_number_;
  if (!file_ || std::filesystem::is_directory(path)) throw InvalidFile(name_ + ": cannot be read; check the path");
  std::getline(file_, line);
  header_ = parse_audit_header(line, where());
}

std::optional<AuditEntry> AuditReader::next() {
  std::string line;
  if (!std::getline(file_, line)) return std::nullopt;
  ++line_number_;
  // Lines are written whole, with their newline.
  if (file_.eof()) {
    last_line_was_cut_off_ = true;
    return std::nullopt;
  }
  return parse_audit_entry(line, header_, where());
}

}  // namespace skipper
