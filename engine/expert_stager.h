// Makes the experts of another plan ready beside those that serve, in the background, and exchanges them between two steps.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cluster/step_plan.h"
#include "engine/staging_report.h"
#include "model/expert_assignment.h"
#include "model/multimodal_model.h"
#include "model/weight_config.h"
#include "model/weight_loader.h"

namespace skipper {

// A plan that an operator may switch to, as one rank sees it.
struct ExpertPolicy {
  std::string name;
  ExpertAssignment assignment;
  size_t expert_room = 0;  // of this rank's memory, what the plan's budget leaves for experts
};

// Where the experts of a rank come from, and the model that they serve in; all of it outlives the stager.
struct StagingSource {
  std::filesystem::path checkpoint;
  const WeightConfig& formats;
  MultimodalModel& model;
  // A plan that came as text (kPostedPolicy), read on the stager's thread. Throws for one that this rank cannot switch to.
  std::function<ExpertPolicy(const std::string& text)> read_plan = nullptr;
  // Sees, on the stager's thread, every policy that is staged, before the rank says that it is ready; null: nobody looks.
  std::function<void(const ExpertPolicy& policy)> prepare = nullptr;
};

// Every expert keeps its rank and slot; formats change. An expert of the same format in both plans is not touched, unless an
// order that mends finds it changed.
class ExpertStager {
 public:
  // The model serves the experts of the policy at `first`. Throws InvalidRequest for what cannot be switched: a GPU, a quantised
  // checkpoint.
  ExpertStager(const StagingSource& source, std::vector<ExpertPolicy> policies, size_t first = 0);
  ~ExpertStager();
  ExpertStager(const ExpertStager&) = delete;
  ExpertStager& operator=(const ExpertStager&) = delete;

  // Engine thread, before each step: exchanges the experts when the order names the version that was staged, and begins or drops
  // what is staged, from `posted_plan` for kPostedPolicy. `served` has the experts of version(): the model's store, or that of a
  // guard whose reference is in the model; they are in the model when the order names another version. Waits for nothing.
  void follow(const ExpertOrder& order, const std::string& posted_plan, const ExpertStore& served);
  // Engine thread: of the experts that serve.
  uint32_t version() const { return version_; }
  // Of what was ordered last.
  StagingReport report() const;

 private:
  struct ServedExpert {
    ExpertSlot slot;
    ExpertMatrices matrices;  // freed by this stager alone
  };
  using ServedExperts = std::vector<std::vector<ServedExpert>>;  // [MoE layer][slot]
  struct Wanted {
    ExpertOrder order;
    std::string posted_plan;
    ServedExperts served;
  };
  // The experts that have to be made, [MoE layer][of those], and what the plan says of each.
  struct ChangedExperts {
    std::vector<std::vector<ExpertSlot>> slots;
    std::vector<std::vector<AssignedExpert>> assigned;
  };
  // Experts that serve no more, or never did.
  struct Retired {
    std::unique_ptr<ExpertStore> store;
    uint32_t successor = 0;  // the version that serves in their place; 0: they never served
    std::chrono::steady_clock::time_point since;
  };

  void activate(uint32_t version);
  void order_staging(const ExpertOrder& order, const std::string& posted_plan, const ExpertStore& served);
  void run();
  void free(Retired retired);
  void stage(const Wanted& wanted);
  std::unique_ptr<ExpertStore> load(const ExpertPolicy& policy, const Wanted& wanted, StagingReport& report);
  ChangedExperts experts_to_make(const ExpertPolicy& policy, const Wanted& wanted, const WeightSource& weights) const;
  size_t bytes_of(const ExpertSlot& slot) const;
  void require_room(const ExpertPolicy& policy, const Wanted& wanted, size_t new_bytes) const;

  StagingSource source_;
  std::vector<ExpertPolicy> policies_;
  uint32_t version_ = kFirstExpertVersion;         // engine thread: of the experts that serve
  uint32_t ordered_version_ = kFirstExpertVersion;  // engine thread: of those that shall be ready

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool is_ending_ = false;
  std::optional<Wanted> wanted_;         // for the thread to take
  std::unique_ptr<ExpertStore> staged_;  // of report_, once it is ready
  size_t staged_room_ = 0;               // that its plan leaves for experts
  size_t serving_room_ = 0;              // the same of the experts that serve
  Retired retired_;                      // for the thread to free
  StagingReport report_;
  std::thread thread_;  // last: it uses the members above
};

}  // namespace skipper
