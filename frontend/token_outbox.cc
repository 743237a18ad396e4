#include "frontend/token_outbox.h"

#include <utility>

namespace skipper {

TokenOutbox::TokenOutbox(size_t capacity) : capacity_(capacity) {}

bool TokenOutbox::push(ChoiceEvent event) {
  // The wakeup runs under the lock, so that none runs after close().
  const std::lock_guard lock(mutex_);
  if (closed_ || events_.size() >= capacity_) return false;
  events_.push_back(std::move(event));
  if (events_.size() == 1 && wakeup_) wakeup_();
  return true;
}

std::vector<ChoiceEvent> TokenOutbox::take_all() {
  const std::lock_guard lock(mutex_);
  return std::exchange(events_, {});
}

void TokenOutbox::set_wakeup(std::function<void()> wakeup) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  wakeup_ = std::move(wakeup);
  if (!events_.empty()) wakeup_();
}

void TokenOutbox::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  wakeup_ = nullptr;
  events_.clear();
}

}  // namespace skipper
