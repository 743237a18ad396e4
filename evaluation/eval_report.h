// The results of an evaluation as JSON and as a table.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "evaluation/answers.h"
#include "evaluation/distance_report.h"
#include "evaluation/perplexity.h"
#include "expert_parallel/traffic_counters.h"
#include "residency/disk_reading.h"

namespace skipper {

struct EvalReport {
  std::map<std::string, PerplexityResult> perplexity;  // by text
  std::map<std::string, TaskScore> vqa;                // by task
  std::map<std::string, TaskScore> chat;               // by task
  std::optional<DistanceReport> distance;              // from level 0
  int level = 0;
  bool rows_travelled = true;  // false (dispatch.payload off): bytes and pairs alone mean something
  TrafficCounters traffic;  // of the whole evaluation, all ranks
  std::vector<DiskReading> disks;  // of each rank; empty where no rank reads experts from disk
};

// {"perplexity":{name:{"perplexity":x,"tokens":n}},"vqa":{task:{"right":n,"total":n}},"chat":{...},
//  "skip":{"level":n,"pairs":{class:{"run":n,"skipped":n}},"skip_ratio":x,"payload_bytes":{hop:{"sent":n,"saved":n}},
//          "wire_bytes":{hop:n}},
//  "distance":{"texts"|"questions"|"visual_questions":{"samples":n,"tokens":n,"kl":x,"kl_interval":[low,high],"flips":x}}}
// and, where rows did not travel, "meaningless": why. "distance" is there when it was measured. skip_ratio is over text and
// vision pairs. With experts on disk also, in the order of the ranks:
//  "disk":[{"rank":r,"needs":{"memory":n,"hit":n,"late":n,"miss":n},"bytes":n,"busy_seconds":x,"exposed_seconds":x,
//           "foreseen":{"read":n,"used":n,"wasted":n},"foresight":"none"|"on"|"off","times_turned_off":n,
//           "cache_experts":n}]
std::string to_json(const EvalReport& report);

std::string to_table(const EvalReport& report);

}  // namespace skipper
