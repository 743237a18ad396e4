// The experts of a rank that a plan puts on its disk: written there when the model is loaded, read while it runs.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>

#include "base/thread_pool.h"
#include "comm/rank_of_group.h"
#include "model/disk_config.h"
#include "model/expert_assignment.h"
#include "model/load_queue.h"
#include "model/weight_loader.h"
#include "residency/disk_residence.h"

namespace skipper {

// The rank's file is used as it is where it holds just these experts, after every hash was checked; otherwise the experts are
// loaded from the checkpoint, rounded and written, a few at a time. Throws InvalidFile, and leaves what was there, for a
// directory or a disk that does not take them, a file that is damaged or not Skipper's, an expert that is not the one whose
// hash the assignment holds; InvalidRequest for a cache that does not hold one expert.
class DiskExperts {
 public:
  DiskExperts(const WeightSource& source, const ExpertStore& store, const ExpertAssignment& assignment, const DiskConfig& config,
              const RankOfGroup& group);

  // Before the other experts are loaded, while there is room to round.
  void settle_file(ThreadPool& workers, const LoadProgress& progress);
  // Opens the file. The routers of the MoE layers foresee what the next layer needs.
  std::unique_ptr<DiskResidence> open(const RouterGates& routers) const;

 private:
  void write_file(ThreadPool& workers, const LoadProgress& progress);
  void require_assigned_hash(const ExpertRecord& record, const std::string& hash) const;
  ExpertShape shape() const;

  const WeightSource source_;
  const ExpertStore& store_;
  DiskConfig config_;
  ExpertFileContent content_;
  std::filesystem::path path_;
};

}  // namespace skipper
