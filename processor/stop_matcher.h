// Finds stop strings in streamed text and holds back what may become one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace skipper {

// The hit is the stop string that is complete first; of several that end at the same byte, the longest. It does not
// depend on how the text is cut into pushes. Belongs to one thread.
class StopMatcher {
 public:
  struct Result {
    std::string text;      // safe to send: no part of it can belong to a stop string
    bool stopped = false;  // the text ends before a stop string, which is swallowed
  };

  // Throws InvalidRequest naming stop[i] for an empty string.
  explicit StopMatcher(std::vector<std::string> stops);

  // After a hit every further push returns no text and `stopped`.
  Result push(std::string_view text);

  // What was held back when no more text comes; nothing after a hit. The next push() starts afresh.
  std::string flush();

 private:
  // One stop string and how much of it the text so far ends with (Knuth, Morris, Pratt).
  struct Stop {
    std::string text;
    std::vector<size_t> border;  // of each prefix: the longest proper prefix that is also its suffix
    size_t matched = 0;
  };

  static void advance(Stop& stop, char byte);
  size_t longest_partial_match() const;
  size_t longest_complete_match() const;

  std::vector<Stop> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace skipper
