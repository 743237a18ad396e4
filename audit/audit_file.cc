#include "audit/audit_file.h"

#include <glog/logging.h>

#include "audit/audit_lines.h"
#include "base/error.h"

namespace skipper {

namespace {

constexpr size_t kMaxWaiting = 65536;  // decisions: about 10 MB

std::string text_of(const AuditFile::Line& line) {
  if (const auto* record = std::get_if<RoutingRecord>(&line)) return to_line(*record);
  return std::get<std::string>(line);
}

}  // namespace

AuditFile::AuditFile(const std::filesystem::path& path, int64_t max_bytes, SlowDisk slow_disk)
    : name_(path.string()), max_bytes_(max_bytes), slow_disk_(slow_disk), file_(path, std::ios::binary | std::ios::trunc) {
  if (!file_) throw Error(name_ + ": cannot be written; check the folder and its permissions");
  thread_ = std::thread([this] { run(); });
}

AuditFile::~AuditFile() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_one();
  thread_.join();
  if (num_dropped_ > 0) LOG(WARNING) << name_ << ": " << num_dropped_ << " lines were left out because the disk was too slow";
}

void AuditFile::append(Line line) {
  {
    std::unique_lock lock(mutex_);
    if (slow_disk_ == SlowDisk::kWait) emptied_.wait(lock, [this] { return has_ended_ || waiting_.size() < kMaxWaiting; });
    if (has_ended_) return;
    if (waiting_.size() >= kMaxWaiting && std::holds_alternative<RoutingRecord>(line)) {
      ++num_dropped_;
      return;
    }
    waiting_.push_back(std::move(line));
  }
  changed_.notify_one();
}

bool AuditFile::has_ended() const {
  const std::lock_guard lock(mutex_);
  return has_ended_;
}

void AuditFile::run() {
  std::vector<Line> lines;
  bool closing = false;
  while (!closing) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return closing_ || !waiting_.empty(); });
      closing = closing_;
      lines.swap(waiting_);
    }
    emptied_.notify_one();
    write(lines);
    lines.clear();
  }
}

void AuditFile::write(const std::vector<Line>& lines) {
  if (has_ended()) return;
  for (const Line& line : lines) {
    const std::string text = text_of(line);
    if (num_bytes_ + static_cast<int64_t>(text.size()) > max_bytes_) {
      stop_with_warning("has reached " + std::to_string(max_bytes_) + " bytes (--audit_max_bytes)");
      break;
    }
    file_ << text;
    num_bytes_ += static_cast<int64_t>(text.size());
  }
  file_.flush();
  if (!file_) stop_with_warning("cannot be written any more");
}

void AuditFile::stop_with_warning(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  has_ended_ = true;
  waiting_.clear();
  emptied_.notify_one();
  LOG(WARNING) << name_ << ": the audit ends here, the file " << reason;
}

}  // namespace skipper
