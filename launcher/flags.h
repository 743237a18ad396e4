// The command line: subcommand, flags, and the errors for both. The only place that knows gflags.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace skipper {

// The flags as plain values. An empty string or −1 means "not given": the config file or the default decides.
struct CommandLine {
  std::string command;                // "serve", "eval", "quantize", "plan", "replay", "tenants", "doctor", "help", "version"
  std::vector<std::string> arguments; // what follows the command without being a flag
  std::string model;
  std::string config;
  std::string host;
  int32_t port = -1;
  int32_t admin_port = -1;
  std::string admin_key_file;
  std::string served_model_name;
  int64_t max_model_len = -1;
  std::string operating_point;
  int32_t level = -1;
  std::string experts;
  std::string dense;
  std::string out;
  std::string calibration;
  int64_t calibration_limit = -1;
  std::string objective;   // frontier
  std::string methods;     // frontier
  std::string html;        // frontier
  bool precision = false;  // frontier
  std::string ratings;     // frontier
  int32_t grid = -1;       // frontier
  int32_t destination_grid = -1;  // frontier
  int32_t generated_steps = -1;   // frontier
  int32_t shadow_grid = -1;       // frontier
  int64_t limit = -1;      // frontier, calibrate: of samples
  int64_t text_windows = -1;      // calibrate
  std::string bypass;             // calibrate
  int64_t reference_memory = -1;  // calibrate, frontier, measure: MB
  std::string data;
  std::string json;
  bool kl = false;         // eval
  int32_t threads = -1;
  std::string device;      // serve, eval
  std::string points;          // measure
  bool answers = false;        // measure
  std::string save_reference;  // measure
  std::string reference;       // measure
  std::string audit;       // replay: the file to read
  std::string cache;       // replay
  int32_t ranks = -1;
  std::string audit_file;  // serve, eval, calibrate: the file to write
  double audit_rate = -1.0;
  std::string memory;         // plan, serve, eval
  std::string host_memory;    // plan, serve, eval
  std::string disk;           // plan, serve, eval
  double max_loss = -1.0;     // plan, serve, eval
  std::string target;         // plan, serve, eval
  std::string profile;        // plan, serve, eval
  std::string owners_of;      // plan
  std::string shadow_format;  // plan
  std::string shadow_memory;  // plan
  std::string machine;        // plan, serve, eval
  std::string plan;           // serve, eval, measure
  std::string policies;       // serve
  std::string policy;         // serve
  std::string tenants;        // serve, tenants
  std::string tenant;         // serve
  bool hashes = false;        // plan
  std::string verify;         // plan
  std::string formats;        // profile
  int32_t plans = -1;         // profile
  int64_t audit_max_bytes = -1;
  double imbalance_alarm = 0.0;  // 0: off
};

// Parses everything, `--flagfile` included. Throws UsageError for an unknown command or flag (naming the nearest), a flag of
// another command, a malformed value, a missing value, or a stray argument.
CommandLine parse_command_line(const std::vector<std::string>& arguments);

// The text of `skipper help [command]`. Throws UsageError for an unknown command.
std::string help_text(const std::string& command);

}  // namespace skipper
