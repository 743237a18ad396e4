// Where the engine thread leaves the tokens of one HTTP request for its connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "engine/generation_request.h"

namespace skipper {

struct ChoiceEvent {
  int32_t choice = 0;
  TokenEvent event;
};

// Thread-safe. The engine never waits: a slow reader's events pile up here, at most as many as the request has tokens.
class TokenOutbox {
 public:
  explicit TokenOutbox(size_t capacity);

  // Engine thread. False when nobody reads any more, or for more events than the request can have.
  bool push(ChoiceEvent event);

  // What came since the last call, in order.
  std::vector<ChoiceEvent> take_all();

  // `wakeup` is called on the pushing thread when the outbox was empty, and at once when it is not empty now; it must only post.
  void set_wakeup(std::function<void()> wakeup);

  // No further event is kept and no wakeup called.
  void close();

 private:
  const size_t capacity_;
  std::mutex mutex_;
  std::vector<ChoiceEvent> events_;
  std::function<void()> wakeup_;
  bool closed_ = false;
};

}  // namespace skipper
