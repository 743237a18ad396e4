#include "residency/residency_config.h"

#include <array>

#include "base/config_limit.h"
#include "base/error.h"

namespace skipper {
namespace {

// In the order of the enums.
constexpr std::array<std::string_view, kNumEvictionRules> kEvictionNames = {"lru", "lfu", "edge"};
constexpr std::array<std::string_view, 3> kForesightNames = {"off", "gate", "table"};
constexpr std::array<std::string_view, 2> kReadNames = {"io_uring", "pread"};

template <typename Choice, size_t kCount>
Choice parse(const std::array<std::string_view, kCount>& names, const std::string& text, const std::string& where) {
  std::string known;
  for (size_t i = 0; i < kCount; ++i) {
    if (text == names[i]) return static_cast<Choice>(i);
    known += (i == 0 ? "" : i + 1 == kCount ? " or " : ", ") + std::string(names[i]);
  }
  throw InvalidFile(where + ": '" + text + "' is not supported; use " + known);
}

}  // namespace

std::string_view name_of(EvictionRule rule) { return kEvictionNames[static_cast<size_t>(rule)]; }
std::string_view name_of(ForesightRule rule) { return kForesightNames[static_cast<size_t>(rule)]; }
std::string_view name_of(ReadMethod method) { return kReadNames[static_cast<size_t>(method)]; }

EvictionRule parse_eviction_rule(const std::string& text, const std::string& where) {
  return parse<EvictionRule>(kEvictionNames, text, where);
}

ForesightRule parse_foresight_rule(const std::string& text, const std::string& where) {
  return parse<ForesightRule>(kForesightNames, text, where);
}

ReadMethod parse_read_method(const std::string& text, const std::string& where) {
  return parse<ReadMethod>(kReadNames, text, where);
}

void ResidencyConfig::validate() const {
  constexpr int64_t kMostMegabytes = int64_t{1} << 32;
  require({"residency.cache_mb", cache_mb, 0, kMostMegabytes});
}

}  // namespace skipper
