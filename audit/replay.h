// Decides the skipping of an audit file again: as a check of what was logged, or under another operating point.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "audit/audit_reader.h"
#include "cluster/operating_point.h"
#include "cluster/token_class.h"

namespace skipper {

struct ReplayReport {
  int64_t num_decisions = 0;
  int64_t num_pairs = 0;
  int64_t num_skipped = 0;
  int64_t num_on_shadows = 0;    // not skipped
  int64_t num_of_batch = 0;      // decisions that a rule made for a whole batch: no token tells them again
  int64_t num_different = 0;
  std::string first_difference;  // with its line; empty when there is none
};

// Every decision under the table that applied to it. Throws InvalidFile.
ReplayReport replay(AuditReader& reader);

// What every token of the file runs under instead.
struct OtherPoint {
  const LevelTable& levels;
  uint8_t level = 0;
  // Equal blocks of experts over so many, each on a host of its own, without shadows; as many as in the file, and without a
  // number: as in the file.
  std::optional<int> num_ranks;
};

// A token's source is the file's rank; over other ranks than the file's, requests are dealt out in turn.
struct WhatIfReport {
  struct Pairs {
    int64_t routed = 0;
    int64_t skipped_as_logged = 0;
    int64_t skipped_otherwise = 0;
    int64_t on_shadows_as_logged = 0;
    int64_t on_shadows_otherwise = 0;
  };
  // Hidden rows to other ranks, one per token, layer and destination.
  struct Rows {
    int64_t routed = 0;  // without skipping
    int64_t as_logged = 0;
    int64_t otherwise = 0;
  };
  std::array<Pairs, kNumTokenClasses> pairs{};
  std::array<Rows, kNumHops> rows{};  // none are local
};

// Throws InvalidFile, InvalidRequest for a point that depends on the batch.
WhatIfReport decide_otherwise(AuditReader& reader, const OtherPoint& other);

}  // namespace skipper
