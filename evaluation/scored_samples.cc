#include "evaluation/scored_samples.h"

#include <algorithm>
#include <array>
#include <functional>

#include "base/error.h"

namespace skipper {
namespace {

// FNV-1a, 64 bits: says whether data is the same, no more.
class ContentHash {
 public:
  void add(const void* data, size_t num_bytes) {
    for (size_t i = 0; i < num_bytes; ++i) mix(static_cast<const uint8_t*>(data)[i]);
    for (size_t rest = num_bytes; rest > 0; rest >>= 8) mix(static_cast<uint8_t>(rest));  // where one part ends
    mix(0);
  }
  void add(const std::string& text) { add(text.data(), text.size()); }

  std::string hex() const {
    std::string text;
    for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[(state_ >> shift) & 15];
    return text;
  }

 private:
  void mix(uint8_t byte) { state_ = (state_ ^ byte) * 0x100000001b3u; }

  uint64_t state_ = 0xcbf29ce484222325u;
};

SampleKind kind_of(const CalibrationSample& sample) {
  if (sample.is_text()) return SampleKind::kText;
  return sample.question.image.empty() ? SampleKind::kQuestion : SampleKind::kVisionQuestion;
}

// Keeps at most `count` of the samples that `matches`, at equal distances, and all others.
void thin_out(std::vector<ScoredSample>& samples, int64_t count, const std::function<bool(const ScoredSample&)>& matches) {
  const int64_t total = std::count_if(samples.begin(), samples.end(), matches);
  if (count >= total) return;
  std::vector<ScoredSample> kept;
  int64_t index = 0;
  for (ScoredSample& sample : samples) {
    const bool is_match = matches(sample);
    // The first of each of `count` equal stretches.
    const bool is_chosen = index == 0 ? count > 0 : index * count / total != (index - 1) * count / total;
    if (is_match) ++index;
    if (!is_match || is_chosen) kept.push_back(std::move(sample));
  }
  samples = std::move(kept);
}

void apply_limits(std::vector<ScoredSample>& samples, const SampleLimits& limits) {
  const auto part = [](int64_t limit, DataSplit split) {
    const int64_t held_out = limit / static_cast<int64_t>(kHeldOutEvery);
    return split == DataSplit::kHeldOut ? held_out : limit - held_out;
  };
  for (const DataSplit split : {DataSplit::kSearch, DataSplit::kHeldOut}) {
    thin_out(samples, part(limits.text_windows, split),
             [&](const ScoredSample& s) { return s.split == split && s.kind == SampleKind::kText; });
    thin_out(samples, part(limits.samples, split), [&](const ScoredSample& s) { return s.split == split; });
  }
}

int64_t num_scored_of(const CalibrationSample& sample, bool has_end_token, const BpeTokenizer& tokenizer) {
  if (sample.is_text()) return static_cast<int64_t>(sample.text_ids.size()) - 1;
  const auto answer = tokenizer.encode(sample.question.answer, SpecialTokens::kAsText);
  return static_cast<int64_t>(answer.size()) + (has_end_token ? 1 : 0);
}

void hash_sample(const CalibrationSample& sample, ContentHash& hash) {
  hash.add(sample.text_ids.data(), sample.text_ids.size() * sizeof(int32_t));
  hash.add(sample.question.question);
  hash.add(sample.question.answer);
  hash.add(sample.question.image.empty() ? "" : read_file(sample.question.image));
}

}  // namespace

ScoredSamples load_scored_samples(const std::filesystem::path& path, const SampleLimits& limits,
                                  const std::vector<int32_t>& end_token_ids, const BpeTokenizer& tokenizer) {
  CalibrationData data = load_calibration_data(path, INT64_MAX, tokenizer, limits.window_tokens);
  ScoredSamples scored{path, "", end_token_ids, {}};
  std::array<size_t, kNumSampleKinds> num_of_kind{};
  for (CalibrationSample& sample : data.samples) {
    const int64_t num_scored = num_scored_of(sample, !end_token_ids.empty(), tokenizer);
    if (num_scored == 0 && sample.is_text()) continue;
    if (num_scored == 0) throw InvalidFile(path.string() + ": question '" + sample.question.question + "' has an empty answer");
    const SampleKind kind = kind_of(sample);
    const bool is_held_out = ++num_of_kind[static_cast<size_t>(kind)] % kHeldOutEvery == 0;
    scored.samples.push_back(
        {std::move(sample), kind, is_held_out ? DataSplit::kHeldOut : DataSplit::kSearch, num_scored});
  }
  apply_limits(scored.samples, limits);
  ContentHash hash;
  for (const ScoredSample& one : scored.samples) hash_sample(one.sample, hash);
  scored.hash = hash.hex();
  if (scored.samples.empty()) throw InvalidFile(path.string() + ": holds no sample with a token to predict");
  return scored;
}

size_t num_samples_of(const ScoredSamples& samples, DataSplit split) {
  return static_cast<size_t>(std::count_if(samples.samples.begin(), samples.samples.end(),
                                           [split](const ScoredSample& sample) { return sample.split == split; }));
}

}  // namespace skipper
