#include "evaluation/frontier_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {
namespace {

using nlohmann::json;

constexpr double kMillisecondsPerSecond = 1e3;

std::string hop_name(Hop hop) { return std::string(kHopNames[static_cast<size_t>(hop)]); }

json skip_ratio_section(const PointMeasurement& measured) {
  json section = {{"all", measured.skip_ratio()}};
  const std::string phase(kTokenPhaseNames[static_cast<size_t>(TokenPhase::kPrompt)]);
  for (const TokenClass c : {TokenClass::kText, TokenClass::kVision}) {
    section[class_name(static_cast<size_t>(c))][phase] = measured.skip_ratio_of(c);
  }
  return section;
}

json bytes_section(const PointMeasurement& measured) {
  json section;
  for (const Hop hop : {Hop::kNode, Hop::kNetwork}) {
    section[hop_name(hop)] = {{"sent", measured.bytes_sent[static_cast<size_t>(hop)]},
                              {"saved", measured.bytes_saved[static_cast<size_t>(hop)]}};
  }
  return section;
}

json measured_section(const MeasuredPoint& level, const StepTimeModel& step_time) {
  const PointMeasurement& measured = level.held_out;
  const auto steps = static_cast<double>(std::max<int64_t>(measured.num_steps, 1));
  const double predicted = step_time.seconds(measured.pairs() / steps, measured.remote_bytes() / steps);
  return {{"target", level.target},
          {"kl", measured.mean_kl()},
          {"top1_flips", measured.flip_ratio()},
          {"answer_tokens", measured.num_scored},
          {"skip_ratio", skip_ratio_section(measured)},
          {"bytes", bytes_section(measured)},
          {"step_ms", kMillisecondsPerSecond * measured.step_seconds()},
          {"predicted_step_ms", kMillisecondsPerSecond * predicted}};
}

// Beside the target, on the same file system.
std::filesystem::path neighbour_of(const std::filesystem::path& path) { return path.string() + ".new"; }

[[noreturn]] void fail_to_write(const std::filesystem::path& path) {
  throw Error(path.string() + ": cannot be written (" + std::strerror(errno) +
              "); check the folder, its permissions and free space");
}

}  // namespace

std::string to_json(const FrontierResult& result, const FrontierOrigin& origin) {
  json root = {{"version", 1},
               {"model_fingerprint", origin.model_fingerprint},
               {"placement", {{"ranks", origin.world.ranks}, {"ranks_per_node", origin.world.ranks_per_node}}},
               {"levels", json::array()}};
  for (const MeasuredPoint& level : result.ladder) {
    json entry = to_json(level.point);
    entry["measured"] = measured_section(level, result.step_time);
    root["levels"].push_back(std::move(entry));
  }
  return root.dump(1) + "\n";
}

void write_file_atomically(const std::filesystem::path& path, const std::string& content) {
  const std::filesystem::path neighbour = neighbour_of(path);
  std::ofstream file(neighbour, std::ios::binary);
  file << content << std::flush;
  if (!file) fail_to_write(path);
  file.close();
  std::error_code error;
  std::filesystem::rename(neighbour, path, error);
  if (!error) return;
  std::filesystem::remove(neighbour, error);
  fail_to_write(path);
}

void require_writable(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) throw Error(path.string() + ": is a folder; give the name of a file");
  const std::filesystem::path neighbour = neighbour_of(path);
  std::ofstream file(neighbour);
  if (!file) fail_to_write(path);
  file.close();
  std::error_code ignored;
  std::filesystem::remove(neighbour, ignored);
}

}  // namespace skipper
