#include "launcher/progress_line.h"

#include <unistd.h>

#include <cstdio>

namespace skipper {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTerminalInterval{200};
constexpr std::chrono::seconds kLogInterval{10};

}  // namespace

ProgressLine::ProgressLine(std::string title, std::chrono::milliseconds quiet)
    : title_(std::move(title)), start_(Clock::now()), last_shown_(start_), quiet_(quiet),
      on_terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressLine::operator()(size_t done, size_t total) {
  const auto now = Clock::now();
  const bool is_last = done == total;
  const auto interval = on_terminal_ ? Clock::duration(kTerminalInterval) : Clock::duration(kLogInterval);
  if ((!is_last && now - last_shown_ < interval) || total == 0 || now - start_ < quiet_) return;
  last_shown_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  if (done == 0) return;
  const double left = seconds / static_cast<double>(done) * static_cast<double>(total - done);
  std::fprintf(stderr, "%s%s: %zu of %zu, %.0f s, %.0f s left%s", on_terminal_ ? "\r\033[K" : "", title_.c_str(), done, total,
               seconds, left, on_terminal_ && !is_last ? "" : "\n");
}

}  // namespace skipper
