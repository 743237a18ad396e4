// Progress of long work on stderr: a line that is rewritten on a terminal, a line every few seconds elsewhere.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace skipper {

class ProgressLine {
 public:
  // Shows nothing of work that ends within `quiet`.
  explicit ProgressLine(std::string title, std::chrono::milliseconds quiet = {});

  // Shows title, count, share and the time left at the pace so far.
  void operator()(size_t done, size_t total);

 private:
  std::string title_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_shown_;
  std::chrono::milliseconds quiet_;
  bool on_terminal_;
};

}  // namespace skipper
