#include "processor/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace skipper {
namespace {

// border[n] belongs to the prefix of length n; border[0] and border[1] are 0.
std::vector<size_t> prefix_borders(const std::string& text) {
  std::vector<size_t> border(text.size() + 1, 0);
  for (size_t length = 2; length <= text.size(); ++length) {
    const char last = text[length - 1];
    size_t candidate = border[length - 1];
    while (candidate > 0 && text[candidate] != last) candidate = border[candidate];
    border[length] = text[candidate] == last ? candidate + 1 : 0;
  }
  return border;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (size_t i = 0; i < stops.size(); ++i) {
    if (stops[i].empty()) {
      const std::string field = "stop[" + std::to_string(i) + "]";
      throw InvalidRequest(field + " is empty; a stop string needs at least one character", field);
    }
    std::vector<size_t> border = prefix_borders(stops[i]);
    stops_.push_back({std::move(stops[i]), std::move(border), 0});
  }
}

StopMatcher::Result StopMatcher::push(std::string_view text) {
  if (stopped_) return {"", true};
  for (const char byte : text) {
    held_.push_back(byte);
    for (Stop& stop : stops_) advance(stop, byte);
    const size_t complete = longest_complete_match();
    if (complete == 0) continue;
    stopped_ = true;
    held_.resize(held_.size() - complete);
    return {std::exchange(held_, ""), true};
  }
  const size_t num_safe = held_.size() - longest_partial_match();
  Result result{held_.substr(0, num_safe), false};
  held_.erase(0, num_safe);
  return result;
}

std::string StopMatcher::flush() {
  for (Stop& stop : stops_) stop.matched = 0;
  return std::exchange(held_, "");
}

void StopMatcher::advance(Stop& stop, char byte) {
  while (stop.matched > 0 && stop.text[stop.matched] != byte) stop.matched = stop.border[stop.matched];
  if (stop.text[stop.matched] == byte) ++stop.matched;
}

size_t StopMatcher::longest_partial_match() const {
  size_t longest = 0;
  for (const Stop& stop : stops_) longest = std::max(longest, stop.matched);
  return longest;
}

size_t StopMatcher::longest_complete_match() const {
  size_t longest = 0;
  for (const Stop& stop : stops_) {
    if (stop.matched == stop.text.size()) longest = std::max(longest, stop.matched);
  }
  return longest;
}

}  // namespace skipper
