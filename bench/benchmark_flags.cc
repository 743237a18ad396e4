#include "bench/benchmark_flags.h"

#include <gflags/gflags.h>
#include <glog/logging.h>

#include <algorithm>
#include <charconv>
#include <iostream>
#include <sstream>

#include "base/error.h"
#include "base/json_fields.h"

namespace skipper {
namespace {

constexpr int kExitError = 1;
constexpr int kExitUsage = 2;
constexpr int64_t kLargestSize = 1000000;

std::vector<gflags::CommandLineFlagInfo> flags_of(const std::string& source_file) {
  std::vector<gflags::CommandLineFlagInfo> all;
  gflags::GetAllFlags(&all);
  std::erase_if(all, [&](const gflags::CommandLineFlagInfo& flag) { return flag.filename != source_file; });
  return all;
}

void check_known(const std::string& name, const std::string& source_file) {
  std::vector<std::string> names;
  for (const gflags::CommandLineFlagInfo& flag : flags_of(source_file)) names.push_back(flag.name);
  if (std::ranges::find(names, name) != names.end()) return;
  const auto nearest = nearest_name(name, names);
  throw UsageError("unknown flag --" + name + (nearest ? "; did you mean --" + *nearest + "?" : "; see --help"));
}

void set_flag(const std::string& name, const std::string& value) {
  if (!gflags::SetCommandLineOption(name.c_str(), value.c_str()).empty()) return;
  throw UsageError("flag --" + name + ": '" + value + "' is not a valid " +
                   gflags::GetCommandLineFlagInfoOrDie(name.c_str()).type);
}

}  // namespace

void parse_benchmark_flags(const std::vector<std::string>& arguments, const std::string& source_file) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument.rfind("--", 0) != 0) throw UsageError("'" + argument + "' is not a flag; see --help");
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
    check_known(name, source_file);
    if (equals != std::string::npos) {
      set_flag(name, argument.substr(equals + 1));
    } else if (++i < arguments.size()) {
      set_flag(name, arguments[i]);
    } else {
      throw UsageError("flag --" + name + " needs a value");
    }
  }
}

bool asks_for_help(const std::vector<std::string>& arguments) {
  return std::ranges::any_of(arguments, [](const std::string& a) { return a == "--help" || a == "-h"; });
}

std::string benchmark_help(const std::string& introduction, const std::string& source_file) {
  std::ostringstream text;
  text << introduction;
  for (const gflags::CommandLineFlagInfo& flag : flags_of(source_file)) {
    text << "  --" << flag.name << "  " << flag.description;
    if (!flag.default_value.empty()) text << " (default " << flag.default_value << ")";
    text << "\n";
  }
  return text.str();
}

std::vector<int64_t> parse_sizes(const std::string& flag, const std::string& text) {
  std::vector<int64_t> sizes;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    int64_t size = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), size);
    if (error != std::errc() || end != part.data() + part.size() || size < 1 || size > kLargestSize) {
      throw UsageError("flag --" + flag + ": '" + part + "' is not a number from 1 to " + std::to_string(kLargestSize));
    }
    sizes.push_back(size);
  }
  return sizes;
}

int benchmark_main(const BenchmarkProgram& program, int argc, char** argv, const ErrorSpeakers& speakers) {
  google::InitGoogleLogging(argv[0]);
  google::LogToStderr();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto print_error = [&](const std::string& message) { std::cerr << program.name << ": error: " + message + "\n"; };
  try {
    if (asks_for_help(arguments)) {
      std::cout << benchmark_help(program.introduction, program.source_file);
      return 0;
    }
    parse_benchmark_flags(arguments, program.source_file);
    program.run();
    return 0;
  } catch (const UsageError& e) {
    if (speakers.of_usage()) print_error(e.what());
    return kExitUsage;
  } catch (const std::exception& e) {
    if (speakers.of_failure()) print_error(e.what());
    return kExitError;
  }
}

}  // namespace skipper
