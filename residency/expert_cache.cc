#include "residency/expert_cache.h"

#include <glog/logging.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace skipper {
namespace {

using Clock = std::chrono::steady_clock;

std::unique_ptr<EvictionPolicy> eviction_of(const ExpertCacheConfig& config) {
  return config.parts.make_eviction ? config.parts.make_eviction() : make_eviction_policy(config.rules.eviction, config.counts);
}

}  // namespace

int frames_in(const ExpertFileContent& content, size_t num_bytes) {
  const size_t largest = largest_record(content);
  return largest == 0 ? 0 : static_cast<int>(std::min(num_bytes / largest, content.records.size()));
}

ExpertCache::ExpertCache(const ExpertCacheConfig& config)
    : shape_(config.shape),
      counts_(config.counts),
      records_(config.content.records),
      record_index_(config.counts.total(), -1),
      frame_bytes_(largest_record(config.content)),
      memory_(allocate_for_direct_reads(frame_bytes_ * static_cast<size_t>(config.num_frames))),
      table_(config.num_frames, config.counts, eviction_of(config)),
      frames_(static_cast<size_t>(config.num_frames)),
      file_(config.file),
      reader_(file_, config.rules.reads) {
  CHECK_GE(config.num_frames, 1);
  for (size_t i = 0; i < records_.size(); ++i) record_index_[counts_.index(records_[i].id)] = static_cast<int32_t>(i);
}

ExpertCache::~ExpertCache() = default;

const ExpertRecord* ExpertCache::record_of(const ExpertId& id) const {
  const int32_t index = record_index_[counts_.index(id)];
  return index < 0 ? nullptr : &records_[static_cast<size_t>(index)];
}

int ExpertCache::demand(const ExpertId& id, int layer) {
  settle();
  int frame = table_.find(id);
  if (frame < 0) {
    frame = take(id, layer);
    while (frame < 0 && give_up_one()) frame = take(id, layer);
    if (frame < 0) return frame;
    table_.note_use(id);
    ++counters_.num_misses;
    start_read(frame, id, ReadUrgency::kDemand);
    return frame;
  }
  table_.pin(frame);
  table_.note_use(id);
  if (std::exchange(at(frame).is_foreseen, false)) ++counters_.num_used;
  ++(at(frame).ticket == 0 ? counters_.num_hits : counters_.num_late);
  if (at(frame).ticket != 0) reader_.hasten(at(frame).ticket);
  return frame;
}

int ExpertCache::take(const ExpertId& id, int layer) {
  const int frame = table_.take(id, layer);
  if (frame < 0) return frame;
  if (std::exchange(at(frame).is_foreseen, false)) ++counters_.num_wasted;
  return frame;
}

void ExpertCache::start_read(int frame, const ExpertId& id, ReadUrgency urgency) {
  const ExpertRecord* record = record_of(id);
  CHECK(record != nullptr) << "expert " << id.expert << " of MoE layer " << id.layer << " does not rest on disk";
  at(frame).ticket = reader_.start({record->offset, record->num_bytes, memory_of(frame)}, urgency);
}

bool ExpertCache::is_ready(int frame) const { return at(frame).ticket == 0 || reader_.has_ended(at(frame).ticket); }

void ExpertCache::wait(int frame) {
  if (at(frame).ticket == 0) return;
  const auto begin = Clock::now();
  end_read(frame);
  counters_.exposed_seconds += std::chrono::duration<double>(Clock::now() - begin).count();
}

void ExpertCache::end_read(int frame) {
  reader_.wait(std::exchange(at(frame).ticket, 0));
  if (!std::exchange(at(frame).holds_itself, false)) return;
  std::erase(reading_ahead_, frame);
  table_.unpin(frame);
}

ExpertMatrices ExpertCache::matrices(int frame) const {
  return record_at(memory_of(frame), record_of(table_.expert_of(frame))->format, shape_);
}

// Half of the frames stay for what is needed.
void ExpertCache::foresee(const ExpertId& id, int layer, ReadUrgency urgency) {
  settle();
  if (holds_or_reads(id) || reading_ahead_.size() >= frames_.size() / 2) return;
  const int frame = take(id, layer);
  if (frame < 0) return;
  at(frame) = {.ticket = 0, .is_foreseen = true, .holds_itself = true};
  reading_ahead_.push_back(frame);
  ++counters_.num_foreseen;
  start_read(frame, id, urgency);
}

int ExpertCache::hold(const ExpertId& id) {
  const int frame = table_.find(id);
  if (frame >= 0) table_.pin(frame);
  return frame;
}

// Foreseen reads that have ended hold their frames no longer.
void ExpertCache::settle() {
  for (size_t i = 0; i < reading_ahead_.size();) {
    if (is_ready(reading_ahead_[i])) {
      end_read(reading_ahead_[i]);
    } else {
      ++i;
    }
  }
}

void ExpertCache::give_up_foreseen(int layer, std::span<const ExpertId> needed) {
  settle();
  for (const int frame : std::vector<int>(reading_ahead_)) {
    const ExpertId id = table_.expert_of(frame);
    if (id.layer == layer && std::ranges::find(needed, id) == needed.end()) give_up(frame);
  }
}

void ExpertCache::give_up(int frame) {
  reader_.cancel(std::exchange(at(frame).ticket, 0));
  at(frame) = {};
  std::erase(reading_ahead_, frame);
  table_.unpin(frame);
  table_.drop(frame);
  ++counters_.num_wasted;
}

// A foreseen expert that nobody needs yet makes room for one that is needed.
bool ExpertCache::give_up_one() {
  const auto found = std::ranges::find_if(reading_ahead_, [this](int frame) { return at(frame).is_foreseen; });
  if (found == reading_ahead_.end()) return false;
  give_up(*found);
  return true;
}

CacheCounters ExpertCache::counters() const {
  CacheCounters counters = counters_;
  const ReadCounters reads = reader_.counters();
  counters.num_bytes = reads.num_bytes;
  counters.busy_seconds = reads.busy_seconds;
  return counters;
}

}  // namespace skipper
