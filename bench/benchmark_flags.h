// Command lines of the benchmark programs: gflags' flags of one source file, with every mistake as one line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace skipper {

// Sets the flags that `source_file` (__FILE__) defines from the command line. Throws UsageError for an unknown flag, naming the
// nearest, a missing or malformed value, or a stray argument.
void parse_benchmark_flags(const std::vector<std::string>& arguments, const std::string& source_file);

// Whether the command line asks for help.
bool asks_for_help(const std::vector<std::string>& arguments);

// `introduction`, then the flags of `source_file` with their defaults.
std::string benchmark_help(const std::string& introduction, const std::string& source_file);

// "1,4,16" → {1, 4, 16}; nothing for an empty text. Throws UsageError naming the flag for anything but numbers from 1 to
// 1000000.
std::vector<int64_t> parse_sizes(const std::string& flag, const std::string& text);

// A program of this folder.
struct BenchmarkProgram {
  const char* name;
  const char* introduction;  // of its help
  const char* source_file;   // __FILE__, whose flags it takes
  void (*run)();
};

// Whether this process is the one to print an error, if it is one of several.
struct ErrorSpeakers {
  bool (*of_usage)() = [] { return true; };
  bool (*of_failure)() = [] { return true; };
};

// The body of main(): logging, help, flags, run. Returns the exit status; an error is one line on stderr, 2 for usage, else 1.
int benchmark_main(const BenchmarkProgram& program, int argc, char** argv, const ErrorSpeakers& speakers = {});

}  // namespace skipper
