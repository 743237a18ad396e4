#include "launcher/signal_watcher.h"

#include <csignal>
#include <pthread.h>

#include <utility>

namespace skipper {
namespace {

// Ends the watcher's own wait; no one outside sends it to a thread.
constexpr int kWakeUp = SIGURG;

sigset_t watched_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, kWakeUp);
  return set;
}

}  // namespace

void block_stop_signals() {
  const sigset_t set = watched_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // A client that closes its socket early must not end the server.
  std::signal(SIGPIPE, SIG_IGN);
}

SignalWatcher::SignalWatcher(std::function<void(StopSignal)> on_signal)
    : thread_([on_signal = std::move(on_signal)] {
        const sigset_t set = watched_signals();
        int signal = 0;
        while (sigwait(&set, &signal) == 0 && signal != kWakeUp) {
          on_signal(signal == SIGUSR1 ? StopSignal::kDrain : StopSignal::kTerminate);
        }
      }) {}

SignalWatcher::~SignalWatcher() {
  pthread_kill(thread_.native_handle(), kWakeUp);
  thread_.join();
}

}  // namespace skipper
