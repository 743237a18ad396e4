#include "jinja/template.h"

#include "jinja/evaluator.h"
#include "jinja/parser.h"

namespace skipper::jinja {

struct Template::Parsed {
  Body body;
};

Template::Template(std::string_view source, Limits limits)
    : parsed_(std::make_unique<const Parsed>(Parsed{parse_template(source)})), limits_(limits) {}
Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

std::string Template::render(const Map& context) const { return render_at(std::time(nullptr), context); }

std::string Template::render_at(std::time_t now, const Map& context) const {
  return Evaluator(limits_, context, now).render(parsed_->body);
}

}  // namespace skipper::jinja
