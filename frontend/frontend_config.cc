#include "frontend/frontend_config.h"

#include "base/config_limit.h"
#include "base/error.h"

namespace skipper {
namespace {

void require_bytes(const char* key, size_t value, int64_t min, int64_t max) {
  require({.key = key, .value = static_cast<int64_t>(value), .min = min, .max = max});
}

void require_timeout(const char* key, std::chrono::milliseconds value) {
  require({.key = key, .value = value.count(), .min = 1, .max = 24LL * 3600 * 1000});
}

}  // namespace

void FrontendConfig::validate() const {
  constexpr int64_t kGibibyte = int64_t{1} << 30;
  if (host.empty()) throw InvalidFile("frontend.host: is empty; use an address such as 127.0.0.1");
  require({.key = "frontend.port", .value = port, .min = 0, .max = 65535});
  require({.key = "frontend.max_connections", .value = max_connections, .min = 1, .max = 100'000});
  require({.key = "frontend.processor_threads", .value = processor_threads, .min = 1, .max = 256});
  require_bytes("frontend.max_target_bytes", max_target_bytes, 64, 64 << 10);
  require_bytes("frontend.max_header_bytes", max_header_bytes, 1024, 1 << 20);
  require_bytes("frontend.max_body_bytes", max_body_bytes, 1024, kGibibyte);
  const auto one_body = static_cast<int64_t>(max_body_bytes);
  require_bytes("frontend.max_inflight_body_bytes", max_inflight_body_bytes, one_body, 64 * kGibibyte);
  require_bytes("frontend.max_json_values", max_json_values, 64, 16 << 20);
  require_bytes("frontend.max_json_depth", max_json_depth, 8, 128);
  require_bytes("frontend.max_messages", max_messages, 1, 100'000);
  require_bytes("frontend.max_images", max_images, 0, 4096);
  require_bytes("frontend.max_image_bytes", max_image_bytes, 64, kGibibyte);
  require_bytes("frontend.max_choices", max_choices, 1, 128);
  require_bytes("frontend.max_stop_strings", max_stop_strings, 1, 1024);
  require_bytes("frontend.max_stop_bytes", max_stop_bytes, 1, 64 << 10);
  require_bytes("frontend.max_stop_token_ids", max_stop_token_ids, 1, 4096);
  require_timeout("frontend.header_timeout_ms", header_timeout);
  require_timeout("frontend.idle_timeout_ms", idle_timeout);
  require_timeout("frontend.body_timeout_ms", body_timeout);
  require_timeout("frontend.write_timeout_ms", write_timeout);
  require_timeout("frontend.drain_timeout_ms", drain_timeout);
  require_timeout("frontend.stall_timeout_ms", stall_timeout);
}

}  // namespace skipper
