// What operators and probes ask: /live, /ready, /health, /metrics, /version, and the model list.
#pragma once

#include "frontend/http_message.h"
#include "frontend/serving_context.h"

namespace skipper {

// 200 as long as the process answers.
HttpResponse live_response();
// 200 when a request sent now would be taken: loaded, not draining, queue not full.
HttpResponse ready_response(const EngineStatus& status);
// 503 when a step takes longer than `stall_timeout` or the engine failed; an idle engine is healthy however long it idles.
HttpResponse health_response(const EngineStatus& status, std::chrono::milliseconds stall_timeout);
HttpResponse metrics_response(const MetricsRegistry& metrics);
HttpResponse version_response();
HttpResponse models_response(const ServedModel& model);

}  // namespace skipper
