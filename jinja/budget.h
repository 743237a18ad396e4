// The limits of one rendering: a template that loops or grows without end is stopped, whatever it does.
#pragma once

#include <cstddef>

namespace skipper::jinja {

struct Limits {
  size_t max_steps = 1'000'000;                 // evaluated nodes and loop rounds
  size_t max_output_bytes = size_t{16} << 20;   // of the output and of every single string
  size_t max_work_bytes = size_t{512} << 20;    // read or written by all string and list operations together
  int max_nesting = 400;                        // of nodes being evaluated, macro calls included
};

// Counts what a rendering has used; each method throws Failure when its limit is passed.
class Budget {
 public:
  explicit Budget(const Limits& limits) : limits_(limits) {}

  void spend_step() { spend_steps(1); }
  void spend_steps(size_t count);
  void spend_bytes(size_t count);
  // Refuses strings over the limit; spends nothing.
  void check_text(size_t bytes) const;
  // A string of that size is about to be made.
  void spend_text(size_t bytes);
  // `count` values are about to be made or copied.
  void spend_values(size_t count);

  // Held while a node is evaluated.
  class Nesting {
   public:
    explicit Nesting(Budget& budget);
    ~Nesting() { --budget_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    Budget& budget_;
  };

 private:
  Limits limits_;
  size_t steps_ = 0;
  size_t bytes_ = 0;
  int nesting_ = 0;
};

}  // namespace skipper::jinja
