#include "residency/disk_residence.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace skipper {

DiskResidence::DiskResidence(const ExpertCacheConfig& config, std::vector<std::vector<int32_t>> slots,
                             std::unique_ptr<ExpertPredictor> predictor, ForesightUse use)
    : cache_(config), slots_(std::move(slots)), predictor_(std::move(predictor)), use_(use) {}

ExpertId DiskResidence::expert_at(int layer, int32_t slot) const {
  return {layer, slots_[static_cast<size_t>(layer)][static_cast<size_t>(slot)]};
}

void DiskResidence::begin(const LayerDemand& demand, Stream& stream) {
  end_layer();
  layer_ = demand.layer;
  needed_.clear();
  for (const int32_t slot : demand.on_disk) {
    needed_.push_back(expert_at(layer_, slot));
    pending_.push_back({slot, needed_.back()});
  }
  num_needs_ = static_cast<int64_t>(pending_.size());
  cache_.give_up_foreseen(layer_, needed_);
  demand_frames();
  if (predictor_) foresee(demand, stream);
}

// What the layer before has waited is known now.
void DiskResidence::end_layer() {
  CHECK(pending_.empty() && given_.empty()) << "MoE layer " << layer_ << " did not take all its experts";
  const double exposed = cache_.counters().exposed_seconds;
  switch_.observe(num_needs_, exposed - std::exchange(exposed_before_, exposed));
}

// Those in memory first, so that none of them is pushed out by the others.
void DiskResidence::demand_frames() {
  for (Pending& one : pending_) {
    if (one.frame < 0 && cache_.holds_or_reads(one.id)) one.frame = cache_.demand(one.id, layer_);
  }
  for (Pending& one : pending_) {
    if (one.frame < 0) one.frame = cache_.demand(one.id, layer_);
    if (one.frame < 0) return;
  }
}

bool DiskResidence::foresees() const { return use_ == ForesightUse::kAlways || switch_.is_on(); }

void DiskResidence::foresee(const LayerDemand& demand, Stream& stream) {
  used_experts_.clear();
  for (const int32_t slot : demand.used) used_experts_.push_back(expert_at(layer_, slot).expert);
  predictor_->observe(layer_, used_experts_);
  const size_t next_layer = static_cast<size_t>(layer_) + 1;
  if (next_layer >= slots_.size() || demand.used.empty() || !foresees()) return;
  const auto next = static_cast<int>(next_layer);
  // As many as this layer took: the next has the same tokens.
  const std::vector<int32_t> likely = predictor_->predict(next, demand.tokens, demand.used.size(), stream);
  std::vector<int> held;
  for (const int32_t expert : likely) {
    const int frame = cache_.hold({next, expert});
    if (frame >= 0) held.push_back(frame);
  }
  for (const int32_t expert : likely) {
    if (cache_.knows({next, expert})) cache_.foresee({next, expert}, layer_);
  }
  for (const int frame : held) cache_.release(frame);
}

std::span<const ResidentExpert> DiskResidence::next() {
  CHECK(given_.empty()) << "experts are asked for before those given are released";
  if (pending_.empty()) return {};
  demand_frames();
  const auto is_ready = [this](const Pending& one) { return one.frame >= 0 && cache_.is_ready(one.frame); };
  if (std::ranges::none_of(pending_, is_ready)) {
    const auto oldest = std::ranges::find_if(pending_, [](const Pending& one) { return one.frame >= 0; });
    CHECK(oldest != pending_.end()) << "no frame for any expert of MoE layer " << layer_;
    cache_.wait(oldest->frame);
  }
  for (const Pending& one : pending_) {
    if (!is_ready(one)) continue;
    cache_.wait(one.frame);  // ended: takes no time
    given_.push_back({one.slot, cache_.matrices(one.frame)});
    given_frames_.push_back(one.frame);
  }
  std::erase_if(pending_, [&](const Pending& one) { return std::ranges::find(given_frames_, one.frame) != given_frames_.end(); });
  return given_;
}

void DiskResidence::release() {
  for (const int frame : given_frames_) cache_.release(frame);
  given_frames_.clear();
  given_.clear();
  demand_frames();
}

ForesightReport DiskResidence::foresight() const {
  return {.is_on = predictor_ != nullptr && foresees(),
          .num_times_off = switch_.num_times_off(),
          .waited_without = switch_.waited_without(),
          .waited_with = switch_.waited_with()};
}

}  // namespace skipper
