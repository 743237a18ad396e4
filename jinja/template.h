// A chat template: parsed once, rendered for every request. Templates are data of a model directory, never of a request.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>

#include "jinja/budget.h"
#include "jinja/value.h"

namespace skipper::jinja {

// The subset of Jinja2 that Hugging Face chat templates use, with transformers' settings (trim_blocks, lstrip_blocks) and
// functions (raise_exception, strftime_now, its tojson). Runs in a sandbox: templates reach only the values they are
// given, change nothing but their own namespaces, and stop at the limits. Rendering is thread-safe.
class Template {
 public:
  // Throws TemplateError for syntax errors and, naming it, for syntax outside the subset.
  explicit Template(std::string_view source, Limits limits = {});
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  // Throws TemplateError; RaisedByTemplate when the template calls raise_exception.
  std::string render(const Map& context) const;
  // The same at a fixed time for strftime_now.
  std::string render_at(std::time_t now, const Map& context) const;

 private:
  struct Parsed;
  std::unique_ptr<const Parsed> parsed_;
  Limits limits_;
};

}  // namespace skipper::jinja
