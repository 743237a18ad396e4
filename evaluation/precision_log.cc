#include "evaluation/precision_log.h"

#include <nlohmann/json.hpp>

namespace skipper {
namespace {

using nlohmann::json;

std::string key_of(const ExpertFormats& formats) {
  std::string key;
  for (const std::vector<WeightFormat>& layer : formats) {
    for (const WeightFormat& format : layer) key += name_of(format) + " ";
  }
  return key;
}

std::string measurement_line(const std::string& key, const PrecisionMeasurement& m) {
  json measured = {{"kl", m.kl}, {"perplexity", m.perplexity}, {"right", m.right}, {"questions", m.questions},
                   {"tokens_per_second", m.tokens_per_second}};
  if (m.joules_per_token) measured["joules_per_token"] = *m.joules_per_token;
  return json({{"formats", key}, {"measured", measured}}).dump();
}

PrecisionMeasurement measurement_from(const json& measured) {
  PrecisionMeasurement m{.kl = measured.at("kl"), .perplexity = measured.at("perplexity"), .right = measured.at("right"),
                         .questions = measured.at("questions"), .tokens_per_second = measured.at("tokens_per_second"),
                         .joules_per_token = std::nullopt};
  if (measured.contains("joules_per_token")) m.joules_per_token = measured.at("joules_per_token").get<double>();
  return m;
}

}  // namespace

PrecisionLog::PrecisionLog(std::filesystem::path path, const std::string& settings) : file_(std::move(path)) {
  for (const std::string& line : file_.lines(settings)) {
    try {
      const json entry = json::parse(line);
      measurements_[entry.at("formats").get<std::string>()] = measurement_from(entry.at("measured"));
    } catch (const json::exception&) {
      break;  // cut short
    }
  }
  num_taken_over_ = measurements_.size();
  std::vector<std::string> lines;
  for (const auto& [key, measurement] : measurements_) lines.push_back(measurement_line(key, measurement));
  file_.begin(settings, lines);
}

std::optional<PrecisionMeasurement> PrecisionLog::find(const ExpertFormats& formats) const {
  const auto found = measurements_.find(key_of(formats));
  return found == measurements_.end() ? std::nullopt : std::optional(found->second);
}

void PrecisionLog::add(const ExpertFormats& formats, const PrecisionMeasurement& measurement) {
  measurements_[key_of(formats)] = measurement;
  file_.add(measurement_line(key_of(formats), measurement));
}

}  // namespace skipper
