// SIGINT, SIGTERM and SIGUSR1 as calls on a thread of our own.
#pragma once

#include <functional>
#include <thread>

namespace skipper {

enum class StopSignal { kTerminate, kDrain };  // SIGINT and SIGTERM; SIGUSR1

// Blocks the three signals in the calling thread and all threads it starts later. Call it before there are other threads.
void block_stop_signals();

// Calls `on_signal` from its own thread for every signal that arrives until destruction.
class SignalWatcher {
 public:
  explicit SignalWatcher(std::function<void(StopSignal)> on_signal);
  ~SignalWatcher();
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

 private:
  std::thread thread_;
};

}  // namespace skipper
