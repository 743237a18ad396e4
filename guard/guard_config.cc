#include "guard/guard_config.h"

#include "base/config_limit.h"
#include "base/error.h"

namespace skipper {
namespace {

struct NumberLimit {
  const char* key;
  double value;
  double min;
  double max;
};

std::string text_of(double value) {
  std::string text = std::to_string(value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

void require_number(const NumberLimit& limit) {
  if (limit.value >= limit.min && limit.value <= limit.max) return;
  throw InvalidFile(std::string(limit.key) + ": " + text_of(limit.value) + " is outside of " + text_of(limit.min) + " to " +
                    text_of(limit.max));
}

}  // namespace

void GuardConfig::validate() const {
  require_number({"guard.share", share, 0.0, 1.0});
  require_number({"guard.request_share", request_share, 0.0, 1.0});
  require_number({"guard.max_error_ratio", max_error_ratio, 1.0, 1000.0});
  require_number({"guard.max_kl", max_kl, 0.000001, 1000.0});
  require({"guard.min_rows", min_rows, 1, window_rows});
  require({"guard.window_rows", window_rows, 2, 1 << 20});
  require({"guard.min_tokens", min_tokens, 1, window_tokens});
  require({"guard.window_tokens", window_tokens, 2, 1 << 20});
  if (request_share > 0.0 && !is_on()) {
    throw InvalidFile("guard.request_share: " + text_of(request_share) +
                      " needs reference experts, which guard.share 0 does not load; give guard.share a value, such as 0.01");
  }
}

}  // namespace skipper
