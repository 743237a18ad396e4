#include "jinja/budget.h"

#include <string>

#include "jinja/failure.h"

namespace skipper::jinja {
namespace {

// What one more value costs in a list: the slot and a share of what it points to.
constexpr size_t kBytesPerValue = 64;

}  // namespace

void Budget::spend_steps(size_t count) {
  if (count > limits_.max_steps - steps_) {
    throw Failure("the template needs more than " + std::to_string(limits_.max_steps) + " steps");
  }
  steps_ += count;
}

void Budget::spend_bytes(size_t count) {
  if (count > limits_.max_work_bytes - bytes_) {
    throw Failure("the template works on more than " + std::to_string(limits_.max_work_bytes) + " bytes");
  }
  bytes_ += count;
}

void Budget::check_text(size_t bytes) const {
  if (bytes > limits_.max_output_bytes) {
    throw Failure("the template makes a text of more than " + std::to_string(limits_.max_output_bytes) + " bytes");
  }
}

void Budget::spend_text(size_t bytes) {
  check_text(bytes);
  spend_bytes(bytes);
}

void Budget::spend_values(size_t count) {
  if (count > limits_.max_work_bytes / kBytesPerValue) {
    throw Failure("the template makes a list of " + std::to_string(count) + " values, too many");
  }
  spend_bytes(count * kBytesPerValue);
}

Budget::Nesting::Nesting(Budget& budget) : budget_(budget) {
  if (budget_.nesting_ >= budget_.limits_.max_nesting) {
    throw Failure("the template nests more than " + std::to_string(budget_.limits_.max_nesting) + " levels deep");
  }
  ++budget_.nesting_;
}

}  // namespace skipper::jinja
