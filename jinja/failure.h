// The exceptions that travel inside the interpreter, before the evaluator knows them by line (then: TemplateError).
#pragma once

#include <stdexcept>

namespace skipper::jinja {

// An operation that Jinja refuses too (adding a string to a number), or a limit that was passed.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// raise_exception(message) was called.
struct RaisedFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace skipper::jinja
