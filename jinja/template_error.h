// What a template can do wrong: bad syntax when it is read, bad operations when it is rendered.
#pragma once

#include <string>

#include "base/error.h"

namespace skipper::jinja {

// what() is "line 12: <message>"; lines count from 1.
class TemplateError : public Error {
 public:
  TemplateError(const std::string& message, int line);

  int line() const { return line_; }
  const std::string& message() const { return message_; }  // without the line

 private:
  std::string message_;
  int line_;
};

// The template itself called raise_exception(message): its author speaks to the client, so `message()` may be shown.
class RaisedByTemplate : public TemplateError {
 public:
  using TemplateError::TemplateError;
};

}  // namespace skipper::jinja
