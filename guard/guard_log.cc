#include "guard/guard_log.h"

#include <glog/logging.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

std::string utc_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[sizeof("2026-01-01T00:00:00Z")];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

const char* name_of(GuardActionKind kind) {
  switch (kind) {
    case GuardActionKind::kRollback: return "rollback";
    case GuardActionKind::kArm: return "arm";
    case GuardActionKind::kReturn: return "return";
  }
  return "";
}

nlohmann::ordered_json to_json(const ServedWeights& weights) { return {{"name", weights.name}, {"version", weights.version}}; }

void add_breach(const GuardBreach& breach, nlohmann::ordered_json& line) {
  line["kind"] = breach.kind == BreachKind::kPredictions ? "kl" : "expert_error";
  line["measured"] = breach.measured;
  line["threshold"] = breach.threshold;
  line["samples"] = breach.num_samples;
  if (breach.kind == BreachKind::kPredictions) return;
  line["rank"] = breach.rank;
  line["moe_layer"] = breach.moe_layer;
  line["expert"] = breach.expert;
}

}  // namespace

std::string guard_line(const GuardAction& action, const std::string& time) {
  nlohmann::ordered_json line;
  line["time"] = time;
  line["step"] = action.step;
  line["term"] = action.term;
  line["action"] = name_of(action.kind);
  line["from"] = to_json(action.from);
  line["to"] = to_json(action.to);
  if (action.breach != nullptr) add_breach(*action.breach, line);
  return line.dump();
}

GuardLog::GuardLog(std::filesystem::path file) : file_(std::move(file)) {
  if (file_.empty()) return;
  if (!std::ofstream(file_, std::ios::app)) {
    throw InvalidFile("guard.log: cannot write " + file_.string() + "; give a file in a directory that exists");
  }
}

void GuardLog::write(const GuardAction& action) {
  const std::string line = guard_line(action, utc_now());
  LOG(WARNING) << "guard " << line;
  if (file_.empty()) return;
  std::ofstream out(file_, std::ios::app);
  out << line << '\n' << std::flush;
  if (!out) LOG(ERROR) << "guard.log: cannot write " << file_.string() << "; the line is in this log alone";
}

}  // namespace skipper
