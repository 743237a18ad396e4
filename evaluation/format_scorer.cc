#include "evaluation/format_scorer.h"

#include <glog/logging.h>

#include <cmath>
#include <utility>

#include "base/error.h"

namespace skipper {
namespace {

constexpr size_t kInFlight = 32;
constexpr int64_t kBytesPerMegabyte = 1'000'000;

void ignore_progress(size_t, size_t) {}

GenerationRequest request_of(const ScoredSamples& samples, size_t index, const MultimodalProcessor& processor) {
  GenerationRequest request = scoring_request(samples.samples[index].sample, samples.end_token_ids, processor);
  request.reference_id = index;
  return request;
}

}  // namespace

ExpertFormats uniform_formats(const ModelConfig& config, const WeightFormat& format) {
  return ExpertFormats(static_cast<size_t>(config.num_moe_layers()),
                       std::vector<WeightFormat>(static_cast<size_t>(config.moe.num_experts), format));
}

ExpertFormats serving_formats(const ExpertPlan& plan, const ModelConfig& config) {
  ExpertFormats formats = uniform_formats(config, {});
  for (const ExpertCopy& copy : plan.copies) {
    if (copy.role != CopyRole::kServing) continue;
    formats[static_cast<size_t>(copy.id.layer)][static_cast<size_t>(copy.id.expert)] = copy.format;
  }
  return formats;
}

FormatScorer::FormatScorer(const ScorerParts& parts, const ScorerSettings& settings)
    : parts_(parts),
      settings_(settings),
      driver_(parts.engine, parts.queue, kInFlight),
      formats_(uniform_formats(parts.model.config(), {})) {
  const auto longest = static_cast<size_t>(parts.engine.config().max_model_len);
  int64_t num_rows = 0;
  for (size_t i = 0; i < parts.samples.samples.size(); ++i) {
    const ScoredSample& sample = parts.samples.samples[i];
    if (sample.split != settings.split || request_of(parts.samples, i, parts.processor).prompt_ids.size() > longest) continue;
    chosen_.push_back(i);
    num_rows += sample.num_scored;
  }
  if (chosen_.empty()) {
    throw InvalidFile(parts.samples.path.string() + ": no sample fits into the context; give shorter ones, or more of them");
  }
  const int64_t num_bytes = num_rows * parts.model.config().vocab_size * static_cast<int64_t>(sizeof(float));
  if (num_bytes <= settings.reference_bytes) return;
  throw ResourceExhausted("the predictions of the unrounded experts take " + std::to_string(num_bytes / kBytesPerMegabyte) +
                          " MB, more than the " + std::to_string(settings.reference_bytes / kBytesPerMegabyte) +
                          " MB of --reference_memory; raise it, or take fewer samples with --limit and --text_windows");
}

void FormatScorer::keep_reference(const ProgressCallback& progress) {
  num_scored_ = 0;
  for (const DrivenResult& one : run(ReferenceUse::kKeep, progress)) num_scored_ += one.num_scored;
}

double FormatScorer::measure(const ExpertFormats& formats) { return score(formats).kl; }

FormatScorer::Score FormatScorer::score(const ExpertFormats& formats) {
  CHECK_GT(num_scored_, 0) << "keep_reference() comes first";
  set_formats(formats);
  double kl = 0.0, text_nll = 0.0;
  int64_t num_text_tokens = 0;
  std::vector<ScoredLoss> losses;
  const std::vector<DrivenResult> results = run(ReferenceUse::kCompare, ignore_progress);
  for (size_t i = 0; i < results.size(); ++i) {
    const SampleKind kind = parts_.samples.samples[chosen_[i]].kind;
    losses.push_back({kind, results[i].distance.kl, static_cast<double>(results[i].num_scored)});
    kl += results[i].distance.kl;
    if (kind != SampleKind::kText) continue;
    text_nll += results[i].prompt_nll;
    num_text_tokens += results[i].num_scored;
  }
  if (!std::isfinite(kl)) {
    throw Error("KL is " + std::to_string(kl) + " with rounded experts; check the model with 'skipper eval'");
  }
  return {.kl = kl / static_cast<double>(num_scored_),
          .text_perplexity = num_text_tokens > 0 ? std::exp(text_nll / static_cast<double>(num_text_tokens)) : 0.0,
          .samples = std::move(losses)};
}

std::vector<DrivenResult> FormatScorer::run(ReferenceUse use, const ProgressCallback& progress) {
  return driver_.run(
      chosen_.size(),
      [&](size_t i) {
        GenerationRequest request = request_of(parts_.samples, chosen_[i], parts_.processor);
        request.level = settings_.level;
        request.reference = use;
        request.rank = 0;
        return request;
      },
      progress);
}

void FormatScorer::set_formats(const ExpertFormats& formats) {
  CHECK_EQ(formats.size(), formats_.size());
  for (size_t layer = 0; layer < formats.size(); ++layer) {
    if (formats[layer] == formats_[layer]) continue;
    parts_.model.set_expert_formats(static_cast<int>(layer), formats[layer], parts_.workers);
    formats_[layer] = formats[layer];
  }
}

}  // namespace skipper
