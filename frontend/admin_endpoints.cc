#include "frontend/admin_endpoints.h"

#include <nlohmann/json.hpp>

#include "base/build_config.h"
#include "frontend/openai_responses.h"

namespace skipper {
namespace {

using Phase = EngineStatus::Phase;

HttpResponse status_response(int status, const std::string& word) {
  return {.status = status, .body = nlohmann::json({{"status", word}}).dump()};
}

const char* phase_name(Phase phase) {
  switch (phase) {
    case Phase::kLoading: return "loading";
    case Phase::kIdle: return "idle";
    case Phase::kStepping: return "stepping";
    case Phase::kFailed: return "failed";
  }
  return "unknown";
}

}  // namespace

HttpResponse live_response() { return status_response(200, "live"); }

HttpResponse ready_response(const EngineStatus& status) {
  if (status.draining) return status_response(503, "draining");
  if (status.phase == Phase::kLoading || status.phase == Phase::kFailed) return status_response(503, phase_name(status.phase));
  if (status.queue_full) return status_response(503, "queue full");
  return status_response(200, "ready");
}

HttpResponse health_response(const EngineStatus& status, std::chrono::milliseconds stall_timeout) {
  const bool stalled = status.phase == Phase::kStepping && status.age > stall_timeout;
  const bool healthy = !stalled && status.phase != Phase::kFailed;
  const nlohmann::json body = {{"status", stalled ? "stalled" : phase_name(status.phase)},
                               {"age_seconds", std::chrono::duration<double>(status.age).count()}};
  return {.status = healthy ? 200 : 503, .body = body.dump()};
}

HttpResponse metrics_response(const MetricsRegistry& metrics) {
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = metrics.text()};
}

HttpResponse version_response() { return {.body = nlohmann::json({{"version", kVersion}}).dump()}; }

HttpResponse models_response(const ServedModel& model) { return {.body = model_list_json(model)}; }

}  // namespace skipper
