#include "residency/disk_residence.h"

#include <glog/logging.h>

#include <algorithm>
#include <utility>

namespace skipper {
namespace {

// A layer that runs four of five of its experts is one of a prompt, or of many streams: the next runs as many.
constexpr size_t kNearlyAllParts = 4, kNearlyAllOf = 5;

}  // namespace

DiskResidence::DiskResidence(const ExpertCacheConfig& config, std::vector<std::vector<int32_t>> slots,
                             std::unique_ptr<ExpertPredictor> predictor, ForesightUse use)
    : cache_(config), slots_(std::move(slots)), on_disk_(slots_.size()), predictor_(std::move(predictor)), use_(use) {
  for (size_t layer = 0; layer < slots_.size(); ++layer) {
    for (const int32_t expert : slots_[layer]) {
      const ExpertId id{static_cast<int>(layer), expert};
      if (cache_.knows(id)) on_disk_[layer].push_back(id);
    }
  }
}

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
  num_in_memory_ += static_cast<int64_t>(demand.used.size()) - num_needs_;
  cache_.give_up_foreseen(layer_, needed_);
  demand_frames();
  is_streaming_ = demand.used.size() * kNearlyAllOf >= slots_[static_cast<size_t>(layer_)].size() * kNearlyAllParts;
  ahead_.clear();
  foresee(demand, stream);
  read_ahead();
}

// What the layer before has waited is known now.
void DiskResidence::end_layer() {
  CHECK(pending_.empty() && given_.empty()) << "MoE layer " << layer_ << " did not take all its experts";
  const double exposed = cache_.counters().exposed_seconds;
  const double waited = exposed - std::exchange(exposed_before_, exposed);
  if (!is_streaming_) switch_.observe(num_needs_, waited);
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

// Which experts of the next layer are worth reading; the predictor sees every layer, whether it is asked or not.
void DiskResidence::foresee(const LayerDemand& demand, Stream& stream) {
  if (predictor_) {
    used_experts_.clear();
    for (const int32_t slot : demand.used) used_experts_.push_back(expert_at(layer_, slot).expert);
    predictor_->observe(layer_, used_experts_);
  }
  const size_t next_layer = static_cast<size_t>(layer_) + 1;
  if (next_layer >= slots_.size()) return;
  if (is_streaming_) {
    ahead_ = on_disk_[next_layer];
    return;
  }
  if (!predictor_ || demand.used.empty() || !foresees()) return;
  const auto next = static_cast<int>(next_layer);
  // As many as this layer took: the next has the same tokens.
  for (const int32_t expert : predictor_->predict(next, demand.tokens, demand.used.size(), stream)) {
    if (cache_.knows({next, expert})) ahead_.push_back({next, expert});
  }
}

// Begins what there are frames for, once all that the layer itself needs has its frame. What is there already stays.
void DiskResidence::read_ahead() {
  if (ahead_.empty() || std::ranges::any_of(pending_, [](const Pending& one) { return one.frame < 0; })) return;
  held_frames_.clear();
  for (const ExpertId& id : ahead_) {
    const int frame = cache_.hold(id);
    if (frame >= 0) held_frames_.push_back(frame);
  }
  const ReadUrgency urgency = is_streaming_ ? ReadUrgency::kDemand : ReadUrgency::kForesight;
  for (const ExpertId& id : ahead_) cache_.foresee(id, layer_, urgency);
  for (const int frame : held_frames_) cache_.release(frame);
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
  read_ahead();
}

ForesightReport DiskResidence::foresight() const {
  return {.has_rule = predictor_ != nullptr,
          .is_on = predictor_ != nullptr && foresees(),
          .num_times_off = switch_.num_times_off(),
          .waited_without = switch_.waited_without(),
          .waited_with = switch_.waited_with()};
}

DiskReading DiskResidence::reading() const {
  return {.cache = counters(), .num_in_memory = num_in_memory_, .num_frames = cache_.num_frames(), .foresight = foresight()};
}

}  // namespace skipper
