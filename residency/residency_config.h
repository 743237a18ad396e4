// How experts on disk pass through memory; for ranks whose plan has some.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "residency/eviction_rule.h"

namespace skipper {

// By what the experts of the next layer are foreseen and read ahead.
enum class ForesightRule : uint8_t {
  kNone,
  kGate,   // the next layer's router, applied to what the present one sees
  kTable,  // which experts followed those of the two layers before, so far
};

// How experts are read. kIoUring falls back to pread, with a warning, where it is not allowed.
enum class ReadMethod : uint8_t {
  kIoUring,   // several pieces at a time
  kBlocking,  // one piece at a time, by pread
};

std::string_view name_of(ForesightRule rule);  // "off", "gate", "table"
std::string_view name_of(ReadMethod method);   // "io_uring", "pread"
// Throw InvalidFile naming `where` and a text that is none of the names.
EvictionRule parse_eviction_rule(const std::string& text, const std::string& where);
ForesightRule parse_foresight_rule(const std::string& text, const std::string& where);
ReadMethod parse_read_method(const std::string& text, const std::string& where);

struct ResidencyConfig {
  int64_t cache_mb = 0;  // memory for experts of the disk; 0: what the plan has room for
  EvictionRule eviction = EvictionRule::kLayerDistance;
  ForesightRule foresight = ForesightRule::kGate;
  ReadMethod reads = ReadMethod::kIoUring;

  // Throws InvalidFile naming the key ("residency.cache_mb").
  void validate() const;
};

}  // namespace skipper
