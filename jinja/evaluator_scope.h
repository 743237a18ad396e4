// Opens a scope inside an evaluator and goes back to the scope before when it ends.
#pragma once

#include <memory>
#include <utility>

#include "jinja/evaluator.h"

namespace skipper::jinja {

class Evaluator::ScopeGuard {
 public:
  ScopeGuard(Evaluator& evaluator, std::shared_ptr<const Scope> parent)
      : evaluator_(evaluator),
        outer_(std::exchange(evaluator.scope_, std::make_shared<Scope>(std::move(parent)))) {}
  ~ScopeGuard() { evaluator_.scope_ = std::move(outer_); }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Evaluator& evaluator_;
  std::shared_ptr<Scope> outer_;
};

}  // namespace skipper::jinja
