#include "model/disk_experts.h"

#include <glog/logging.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "base/error.h"
#include "model/expert_hash.h"

namespace skipper {
namespace {

// Experts that are rounded together, in memory of their own.
constexpr size_t kBytesAtOnce = size_t{64} << 20;

// A fingerprint of the weight files that changes when one of them is replaced: FNV-1a over names, sizes and times.
std::string stamp_of(const std::filesystem::path& directory) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() != ".safetensors") continue;
    files.push_back(entry.path().filename().string() + ":" + std::to_string(entry.file_size()) + ":" +
                    std::to_string(entry.last_write_time().time_since_epoch().count()));
  }
  std::ranges::sort(files);
  uint64_t hash = 14695981039346656037u;
  for (const std::string& file : files) {
    for (const char letter : file + "\n") hash = (hash ^ static_cast<unsigned char>(letter)) * 1099511628211u;
  }
  std::string text(16, '0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = "0123456789abcdef"[(hash >> (60 - 4 * i)) & 15];
  return text;
}

ExpertFileContent content_of(const WeightSource& source, const ExpertStore& store, const ExpertAssignment& assignment,
                             const RankOfGroup& group) {
  ExpertFileContent content{.subject = {.model_fingerprint = source.config.fingerprint,
                                        .checkpoint = stamp_of(source.checkpoint.directory()),
                                        .rank = group.rank,
                                        .world_size = group.num_ranks,
                                        .hidden_size = store.hidden_size(),
                                        .intermediate_size = store.intermediate_size()},
                            .records = {}};
  for (int layer = 0; layer < store.num_layers(); ++layer) {
    for (size_t slot = 0; slot < store.slots(layer).size(); ++slot) {
      const ExpertSlot& expert = store.slots(layer)[slot];
      if (expert.tier != ExpertTier::kDisk) continue;
      content.records.push_back(
          {.id = {layer, expert.expert}, .format = expert.format, .hash = assignment.at(layer, slot).hash});
    }
  }
  return content;
}

// The records after `begin` that are of its layer and loaded with it.
size_t end_of_batch(const std::vector<ExpertRecord>& records, size_t begin) {
  size_t end = begin, num_bytes = 0;
  while (end < records.size() && records[end].id.layer == records[begin].id.layer &&
         (end == begin || num_bytes + records[end].num_bytes <= kBytesAtOnce)) {
    num_bytes += records[end++].num_bytes;
  }
  return end;
}

}  // namespace

DiskExperts::DiskExperts(const WeightSource& source, const ExpertStore& store, const ExpertAssignment& assignment,
                         const DiskConfig& config, const RankOfGroup& group)
    : source_(source),
      store_(store),
      config_(config),
      content_(content_of(source, store, assignment, group)),
      path_(expert_file_path(config.directory, content_.subject)) {
  lay_out(content_);
  if (!std::filesystem::is_directory(config.directory)) {
    throw InvalidFile(config.directory.string() + ": is no directory; give --disk one on the disk that the plan counts on");
  }
  if (frames_in(content_, config.cache_bytes) > 0) return;
  throw InvalidRequest("residency.cache_mb: " + std::to_string(config.cache_bytes / 1'000'000) +
                           " MB hold no expert of the disk, of which one takes " + std::to_string(largest_record(content_)) +
                           " bytes; raise it",
                       "residency.cache_mb");
}

ExpertShape DiskExperts::shape() const {
  return {store_.hidden_size(), store_.intermediate_size(), store_.bf16_activations()};
}

void DiskExperts::settle_file(ThreadPool& workers, const LoadProgress& progress) {
  const bool is_there = find_expert_file(path_, content_);
  if (is_there) {
    check_expert_file(path_, content_, shape(), expert_hash);
  } else {
    write_file(workers, progress);
  }
  LOG(INFO) << "experts on disk file=" << path_.string() << " experts=" << content_.records.size()
            << " bytes=" << store_.disk_bytes() << (is_there ? " as found, hashes checked" : " written");
}

void DiskExperts::write_file(ThreadPool& workers, const LoadProgress& progress) {
  ExpertFileWriter writer(path_, content_);
  const std::vector<ExpertRecord>& records = content_.records;
  size_t done_bytes = 0;
  for (size_t begin = 0; begin < records.size();) {
    const size_t end = end_of_batch(records, begin);
    std::vector<ExpertSlot> slots;
    for (size_t i = begin; i < end; ++i) slots.push_back({records[i].id.expert, records[i].format});
    const int layer = records[begin].id.layer;
    const ExpertStore experts = load_expert_layer(source_, layer, slots, workers);
    std::vector<std::string> hashes(slots.size());
    const auto matrices = [&](size_t slot) { return ExpertMatrices{experts.gate_up(layer)[slot], experts.down(layer)[slot]}; };
    workers.parallel_for(static_cast<int64_t>(slots.size()), [&](int64_t slot) {
      hashes[static_cast<size_t>(slot)] = expert_hash(matrices(static_cast<size_t>(slot)));
    });
    for (size_t i = begin; i < end; ++i) {
      require_assigned_hash(records[i], hashes[i - begin]);
      writer.write(i, matrices(i - begin), hashes[i - begin]);
      done_bytes += records[i].num_bytes;
    }
    if (progress) progress(done_bytes, records.back().offset + records.back().num_bytes - records.front().offset);
    begin = end;
  }
  content_ = writer.commit();
}

void DiskExperts::require_assigned_hash(const ExpertRecord& record, const std::string& hash) const {
  if (record.hash.empty() || record.hash == hash) return;
  throw InvalidFile("expert " + std::to_string(record.id.expert) + " of MoE layer " + std::to_string(record.id.layer) +
                    " has the hash " + hash + ", but the plan says " + record.hash +
                    "; the checkpoint is damaged or not the plan's: download it again, or make the plan again");
}

std::unique_ptr<DiskResidence> DiskExperts::open(const RouterGates& routers) const {
  const ExpertCounts counts{store_.num_layers(), static_cast<int>(source_.config.moe.num_experts)};
  std::vector<std::vector<int32_t>> slots(static_cast<size_t>(store_.num_layers()));
  for (int layer = 0; layer < store_.num_layers(); ++layer) {
    for (const ExpertSlot& slot : store_.slots(layer)) slots[static_cast<size_t>(layer)].push_back(slot.expert);
  }
  const ExpertCacheConfig cache{.file = path_,
                                .content = content_,
                                .shape = shape(),
                                .counts = counts,
                                .num_frames = frames_in(content_, config_.cache_bytes),
                                .rules = config_.rules,
                                .parts = config_.parts};
  auto predictor = config_.parts.make_predictor ? config_.parts.make_predictor()
                                                : make_expert_predictor(config_.rules.foresight, counts, routers);
  auto residence = std::make_unique<DiskResidence>(cache, std::move(slots), std::move(predictor), config_.parts.foresight);
  LOG(INFO) << "experts on disk cache_frames=" << cache.num_frames << " reads=" << name_of(residence->cache().reader().method())
            << " direct=" << residence->cache().reads_directly() << " eviction=" << name_of(config_.rules.eviction);
  return residence;
}

}  // namespace skipper
