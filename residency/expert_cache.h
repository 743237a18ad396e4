// Frames of memory for experts that rest on a disk: those needed now, those used before, those foreseen.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "residency/async_reader.h"
#include "residency/disk_reading.h"
#include "residency/expert_file.h"
#include "residency/frame_table.h"
#include "residency/residence_parts.h"
#include "residency/residency_config.h"

namespace skipper {

struct ExpertCacheConfig {
  std::filesystem::path file;
  ExpertFileContent content;  // of the file
  ExpertShape shape;
  ExpertCounts counts;        // of the router's experts
  int num_frames = 0;         // at least 2
  ResidencyConfig rules = {};
  ResidenceParts parts = {};
};

// Engine thread only; the reading has a thread of its own.
class ExpertCache {
 public:
  explicit ExpertCache(const ExpertCacheConfig& config);
  ~ExpertCache();

  int num_frames() const { return table_.num_frames(); }
  bool holds_or_reads(const ExpertId& id) const { return table_.find(id) >= 0; }
  // Whether the file has the expert.
  bool knows(const ExpertId& id) const { return record_of(id) != nullptr; }

  // The expert is needed while MoE layer `layer` runs: the frame that will hold it, pinned until release(). −1: all frames are
  // pinned; ask again when some are released. A need is counted with its frame.
  int demand(const ExpertId& id, int layer);
  bool is_ready(int frame) const;
  // Blocks until the frame is ready, and counts the time as exposed. Throws InvalidFile when the disk fails.
  void wait(int frame);
  ExpertMatrices matrices(int frame) const;
  void release(int frame) { table_.unpin(frame); }

  // Reads an expert ahead of need, unless it is there, or too many are under way. kDemand: behind what is waited for, but with
  // the whole depth of the disk.
  void foresee(const ExpertId& id, int layer, ReadUrgency urgency = ReadUrgency::kForesight);
  // Holds an expert that is there, so that reading ahead does not push it out; −1: it is not there.
  int hold(const ExpertId& id);
  // Of the experts foreseen for `layer`, gives those up that are still being read and not among `needed`.
  void give_up_foreseen(int layer, std::span<const ExpertId> needed);

  CacheCounters counters() const;
  const AsyncReader& reader() const { return reader_; }
  bool reads_directly() const { return file_.bypasses_page_cache(); }

 private:
  struct Frame {
    uint64_t ticket = 0;       // of a read that has not been waited for; 0: none
    bool is_foreseen = false;  // not needed yet
    bool holds_itself = false;  // pinned by its own read
  };

  const ExpertRecord* record_of(const ExpertId& id) const;
  std::byte* memory_of(int frame) const { return memory_.get() + static_cast<size_t>(frame) * frame_bytes_; }
  int take(const ExpertId& id, int layer);
  void start_read(int frame, const ExpertId& id, ReadUrgency urgency);
  void settle();
  void end_read(int frame);
  void give_up(int frame);
  bool give_up_one();
  Frame& at(int frame) { return frames_[static_cast<size_t>(frame)]; }
  const Frame& at(int frame) const { return frames_[static_cast<size_t>(frame)]; }

  ExpertShape shape_;
  ExpertCounts counts_;
  std::vector<ExpertRecord> records_;
  std::vector<int32_t> record_index_;  // by expert; −1: not on disk
  size_t frame_bytes_ = 0;
  std::shared_ptr<std::byte> memory_;
  FrameTable table_;
  std::vector<Frame> frames_;
  std::vector<int> reading_ahead_;  // frames, the oldest first
  CacheCounters counters_;
  DirectFile file_;
  AsyncReader reader_;  // ends before the memory that it reads into
};

// Frames that fit into `num_bytes`; the largest record decides their size.
int frames_in(const ExpertFileContent& content, size_t num_bytes);

}  // namespace skipper
