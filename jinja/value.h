// The values templates compute with: Python's, as far as chat templates use them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace skipper::jinja {

class Value;

// Lists look alike when iterated and differ in what else they can do:
//              printed   length   x[i]   always true
//   list         yes      yes      yes
//   tuple        yes      yes      yes
//   range                 yes      yes
//   view                  yes               of a map: items(), keys(), values()
//   iterator                                yes, and empty after the first iteration: what filters such as map return
enum class SequenceKind : uint8_t { kList, kTuple, kRange, kView, kIterator };

// Immutable once made, but for an iterator's first iteration.
struct List {
  std::vector<Value> items;
  SequenceKind kind;
  int depth;  // 1 + the deepest item's
};

// Keys are strings, in order of insertion.
class Map {
 public:
  const Value* find(std::string_view key) const;
  void set(std::string key, Value value);  // an existing key keeps its place

  const std::vector<std::pair<std::string, Value>>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }

 private:
  std::vector<std::pair<std::string, Value>> entries_;
  std::unordered_map<std::string, size_t> places_;
};

// namespace(...): the one value that templates can change. Never printed or compared but by identity.
struct Namespace {
  Map attributes;
};

// The `loop` variable of a for statement.
struct Loop {
  std::shared_ptr<const List> items;
  size_t index0 = 0;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// A macro or a global function.
struct Callable {
  std::string name;
  std::function<Value(const Arguments&)> call;
};

struct None {};

// A missing variable, attribute or item: prints as nothing, is false and empty; anything else fails with the reason.
struct Undefined {
  std::shared_ptr<const std::string> reason;
};

class Value {
 public:
  using StringPtr = std::shared_ptr<const std::string>;
  using ListPtr = std::shared_ptr<List>;
  struct MapBox {
    Map map;
    int depth;
  };
  using MapPtr = std::shared_ptr<const MapBox>;

  Value() : data_(None{}) {}
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(std::string value) : data_(std::make_shared<const std::string>(std::move(value))) {}
  Value(std::string_view value) : Value(std::string(value)) {}
  Value(const char* value) : Value(std::string(value)) {}
  Value(std::shared_ptr<Namespace> value) : data_(std::move(value)) {}
  Value(std::shared_ptr<Loop> value) : data_(std::move(value)) {}
  Value(std::shared_ptr<const Callable> value) : data_(std::move(value)) {}

  static Value undefined(std::string reason);
  static Value size(size_t count) { return Value(static_cast<int64_t>(count)); }
  // These two throw Failure when lists and maps nest deeper than kMaxDepth.
  static Value list(std::vector<Value> items, SequenceKind kind = SequenceKind::kList);
  static Value map(Map map);
  static constexpr int kMaxDepth = 64;

  bool is_undefined() const { return holds<Undefined>(); }
  bool is_none() const { return holds<None>(); }
  bool is_bool() const { return holds<bool>(); }
  bool is_int() const { return holds<int64_t>(); }  // a bool is not
  bool is_float() const { return holds<double>(); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  bool is_string() const { return holds<StringPtr>(); }
  bool is_list() const { return holds<ListPtr>(); }  // of any SequenceKind
  bool is_map() const { return holds<MapPtr>(); }
  bool is_namespace() const { return holds<std::shared_ptr<Namespace>>(); }
  bool is_loop() const { return holds<std::shared_ptr<Loop>>(); }
  bool is_callable() const { return holds<std::shared_ptr<const Callable>>(); }

  // The content; the caller has asked for the type before.
  bool as_bool() const { return std::get<bool>(data_); }
  int64_t as_int() const { return is_bool() ? as_bool() : std::get<int64_t>(data_); }
  double as_double() const { return is_float() ? std::get<double>(data_) : static_cast<double>(as_int()); }
  const std::string& as_string() const { return *std::get<StringPtr>(data_); }
  const ListPtr& as_list() const { return std::get<ListPtr>(data_); }
  const Map& as_map() const { return std::get<MapPtr>(data_)->map; }
  Namespace& as_namespace() const { return *std::get<std::shared_ptr<Namespace>>(data_); }
  const std::shared_ptr<Loop>& as_loop() const { return std::get<std::shared_ptr<Loop>>(data_); }
  const Callable& as_callable() const { return *std::get<std::shared_ptr<const Callable>>(data_); }
  const std::string& undefined_reason() const { return *std::get<Undefined>(data_).reason; }

  bool truth() const;
  // Python's name of the type, for messages: "str", "list", "NoneType".
  std::string type_name() const;
  // How many lists and maps are inside one another; bounds every recursion over values.
  int depth() const;

 private:
  template <typename T>
  bool holds() const {
    return std::holds_alternative<T>(data_);
  }

  std::variant<None, Undefined, bool, int64_t, double, StringPtr, ListPtr, MapPtr, std::shared_ptr<Namespace>,
               std::shared_ptr<Loop>, std::shared_ptr<const Callable>>
      data_;
};

}  // namespace skipper::jinja
