#include "launcher/error_line.h"

#include <csignal>
#include <ctime>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace skipper {
namespace {

// Within the half second after which an aborted group is ended by force.
constexpr int kPauseMsPerRank = 60;
constexpr int kLongestPauseMs = 400;

// Longer than a loaded host takes to start all ranks.
constexpr unsigned kFirstRankSeconds = 10;

// The first of the two that is set.
int integer_of(const char* variable, const char* other_variable, int fallback) {
  const char* text = std::getenv(variable);
  if (text == nullptr) text = std::getenv(other_variable);
  return text == nullptr ? fallback : std::atoi(text);
}

int launched_rank() { return integer_of("OMPI_COMM_WORLD_RANK", "PMIX_RANK", 0); }

}  // namespace

void print_error(const std::string& message) {
  const std::string line = "skipper: error: " + message + "\n";
  const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
  (void)written;  // there is nobody left to tell
}

bool is_first_rank() { return launched_rank() == 0; }

int num_launched_ranks() { return integer_of("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", 1); }

int num_launched_ranks_of_this_host() { return integer_of("OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE", 1); }

void wait_for_first_rank() {
  if (!is_first_rank()) sleep(kFirstRankSeconds);  // SIGTERM ends this process here
}

bool lower_rank_has_ended_the_group() {
  if (is_first_rank()) return false;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGCONT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const int pause_ms = std::min(kPauseMsPerRank * launched_rank(), kLongestPauseMs);
  const timespec pause{0, pause_ms * 1000000L};
  return sigtimedwait(&signals, nullptr, &pause) == SIGCONT;
}

}  // namespace skipper
