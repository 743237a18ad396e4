#include "engine/generation_request.h"

#include "base/byte_codec.h"

namespace skipper {
namespace {

constexpr size_t kMinImageBytes = 4 * sizeof(int64_t);

}  // namespace

SkipUsage& SkipUsage::operator+=(const SkipUsage& other) {
  pairs_run += other.pairs_run;
  pairs_skipped += other.pairs_skipped;
  bytes_sent += other.bytes_sent;
  bytes_saved += other.bytes_saved;
  pairs_shadow += other.pairs_shadow;
  return *this;
}

void encode(const GenerationRequest& request, std::vector<std::byte>& out) {
  ByteWriter writer(out);
  writer.value(request.id);
  writer.values(request.prompt_ids);
  writer.values(request.generated_ids);
  writer.value<uint64_t>(request.images.size());
  for (const ImagePatches& image : request.images) {
    writer.value(image.grid_t);
    writer.value(image.grid_h);
    writer.value(image.grid_w);
    writer.values(image.pixels);
  }
  writer.value(request.sampling);
  writer.value(request.max_new_tokens);
  writer.value(request.min_new_tokens);
  writer.values(request.stop_token_ids);
  writer.value(request.level);
  writer.value(request.level_choice);
  writer.values(request.level_history.runs());
  writer.value<uint8_t>(request.score_prompt ? 1 : 0);
  writer.value(request.score_from);
  writer.value(request.answer_from);
  writer.value(request.reference);
  writer.value(request.reference_id);
  writer.value(request.rank);
}

GenerationRequest decode_generation_request(std::span<const std::byte> bytes) {
  ByteReader reader(bytes, "request");
  GenerationRequest request;
  request.id = reader.value<uint64_t>();
  request.prompt_ids = reader.values<int32_t>();
  request.generated_ids = reader.values<int32_t>();
  request.images.resize(reader.count(kMinImageBytes));
  for (ImagePatches& image : request.images) {
    image.grid_t = reader.value<int64_t>();
    image.grid_h = reader.value<int64_t>();
    image.grid_w = reader.value<int64_t>();
    image.pixels = reader.values<float>();
  }
  request.sampling = reader.value<SamplingParams>();
  request.max_new_tokens = reader.value<int32_t>();
  request.min_new_tokens = reader.value<int32_t>();
  request.stop_token_ids = reader.values<int32_t>();
  request.level = reader.value<uint8_t>();
  request.level_choice = reader.value<LevelChoice>();
  request.level_history = LevelHistory(reader.values<LevelRun>());
  request.score_prompt = reader.value<uint8_t>() != 0;
  request.score_from = reader.value<int32_t>();
  request.answer_from = reader.value<int32_t>();
  request.reference = reader.value<ReferenceUse>();
  request.reference_id = reader.value<uint64_t>();
  request.rank = reader.value<int32_t>();
  reader.expect_end();
  return request;
}

void encode(const TokenEvent& event, std::vector<std::byte>& out) {
  ByteWriter writer(out);
  writer.value(event.request_id);
  writer.value(event.token_id);
  writer.value(event.num_generated);
  writer.value(event.finish_reason);
  writer.value(event.prompt_nll);
  writer.value(event.num_scored);
  writer.value(event.distance);
  writer.value(event.level);
  writer.value(event.usage);
  writer.values(event.versions);
  writer.text(event.error);
}

TokenEvent decode_token_event(std::span<const std::byte> bytes) {
  ByteReader reader(bytes, "token event");
  TokenEvent event;
  event.request_id = reader.value<uint64_t>();
  event.token_id = reader.value<int32_t>();
  event.num_generated = reader.value<int32_t>();
  event.finish_reason = reader.value<FinishReason>();
  event.prompt_nll = reader.value<double>();
  event.num_scored = reader.value<int32_t>();
  event.distance = reader.value<ReferenceDistance>();
  event.level = reader.value<uint8_t>();
  event.usage = reader.value<SkipUsage>();
  event.versions = reader.values<VersionTokens>();
  event.error = reader.text();
  reader.expect_end();
  return event;
}

}  // namespace skipper
