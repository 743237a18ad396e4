#include "frontend/json_document.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"

namespace skipper {
namespace {

using nlohmann::json;

// Receives the parser's events and builds the document, refusing what a plain parse would let through.
class DocumentBuilder : public nlohmann::json_sax<json> {
 public:
  DocumentBuilder(json& root, const JsonLimits& limits) : root_(root), limits_(limits) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // never in JSON text

  bool start_object(size_t) override { return open(json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(json::array()); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    count_value();
    const auto [entry, inserted] = open_.back()->get_ref<json::object_t&>().try_emplace(name);
    if (!inserted) throw InvalidRequest("the body is refused: the key '" + shortened(name) + "' appears twice", "");
    member_ = &entry->second;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    throw InvalidRequest("the body is not valid JSON: error at byte " + std::to_string(position), "");
  }

 private:
  static std::string shortened(const std::string& name) {
    return name.size() <= 40 ? name : "(" + std::to_string(name.size()) + " bytes)";
  }

  void count_value() {
    if (++num_values_ <= limits_.max_values) return;
    throw InvalidRequest("the body is refused: more than " + std::to_string(limits_.max_values) + " JSON values", "");
  }

  json* place(json&& value) {
    count_value();
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_object()) return &(*member_ = std::move(value));
    auto& list = open_.back()->get_ref<json::array_t&>();
    return &list.emplace_back(std::move(value));
  }

  bool add(json&& value) {
    place(std::move(value));
    return true;
  }

  bool open(json&& container) {
    if (open_.size() == limits_.max_depth) {
      throw InvalidRequest("the body is refused: JSON nested deeper than " + std::to_string(limits_.max_depth) + " levels", "");
    }
    open_.push_back(place(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  json& root_;
  const JsonLimits limits_;
  std::vector<json*> open_;  // the containers around the current position
  json* member_ = nullptr;   // where the value of the key just read goes
  size_t num_values_ = 0;
};

}  // namespace

json parse_json_document(std::string_view text, const JsonLimits& limits) {
  if (text.empty()) throw InvalidRequest("the body is empty; expected a JSON object", "");
  json root;
  DocumentBuilder builder(root, limits);
  json::sax_parse(text.begin(), text.end(), &builder);
  return root;
}

}  // namespace skipper
