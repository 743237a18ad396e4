#include "guard/reference_experts.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "guard/guard_judge.h"

namespace skipper {
namespace {

constexpr int64_t kMostRows = 256;      // of one layer and step that are computed again
constexpr int64_t kProbeRows = 16;

int64_t most_slots(const ExpertStore& store) {
  int most = 0;
  for (int layer = 0; layer < store.num_layers(); ++layer) most = std::max(most, store.num_local_experts(layer));
  return most;
}

Tensor normal_rows(int64_t width) {
  Tensor rows = Tensor::empty({kProbeRows, width}, DType::kF32);
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  for (float& x : rows.span<float>()) x = normal(random);
  return rows;
}

// All probe rows through one slot.
ExpertBatch probe_batch(const Tensor& rows, int num_slots, int slot) {
  ExpertBatch batch{rows, Tensor::empty({kProbeRows}, DType::kI32), Tensor::zeros({num_slots + 1}, DType::kI32)};
  for (int32_t row = 0; row < kProbeRows; ++row) batch.row_index.data<int32_t>()[row] = row;
  for (int after = slot + 1; after <= num_slots; ++after) {
    batch.row_offsets.data<int32_t>()[after] = static_cast<int32_t>(kProbeRows);
  }
  return batch;
}

RatioSums squared_errors(const float* served, const float* reference, int64_t size) {
  RatioSums sums{.count = 1};
  for (int64_t i = 0; i < size; ++i) {
    const double exact = reference[i], error = static_cast<double>(served[i]) - exact;
    sums.numerator += error * error;
    sums.denominator += exact * exact;
  }
  return sums;
}

// One expert of the reference, rounded to another format.
ExpertStore rounded(const ExpertStore& reference, int layer, int slot, const WeightFormat& format) {
  ExpertStoreConfig config{.hidden_size = reference.hidden_size(),
                           .intermediate_size = reference.intermediate_size(),
                           .slots = std::vector<std::vector<ExpertSlot>>(static_cast<size_t>(reference.num_layers()))};
  const int32_t expert = reference.slots(layer)[static_cast<size_t>(slot)].expert;
  config.slots[static_cast<size_t>(layer)] = {{.expert = expert, .format = format}};
  ExpertStore store(config);
  ExpertMatrices matrices = store.matrices(layer, 0);
  pack_into(unpack(reference.gate_up(layer)[static_cast<size_t>(slot)]), matrices.gate_up);
  pack_into(unpack(reference.down(layer)[static_cast<size_t>(slot)]), matrices.down);
  store.freeze();
  return store;
}

Tensor outputs_of(const ExpertStore& store, int layer, const ExpertBatch& batch, Stream& stream) {
  const ExpertFfn experts(store);
  ExpertScratch scratch(store, kProbeRows);
  Tensor out = Tensor::empty({kProbeRows, store.hidden_size()}, DType::kF32);
  experts.forward(layer, batch, scratch, out, stream);
  return out;
}

// SplitMix64 (Steele, Lea and Flood 2014): evenly spread bits of a counter.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

RatioSums rounding_error(const ExpertStore& reference, int layer, int slot, const WeightFormat& format, Stream& stream) {
  const Tensor rows = normal_rows(reference.hidden_size());
  const Tensor exact = outputs_of(reference, layer, probe_batch(rows, reference.num_local_experts(layer), slot), stream);
  const Tensor coarse = outputs_of(rounded(reference, layer, slot, format), layer, probe_batch(rows, 1, 0), stream);
  return squared_errors(coarse.data<float>(), exact.data<float>(), exact.num_elements());
}

double relative_error(const RatioSums& sums) {
  if (sums.numerator == 0.0) return 0.0;
  return std::sqrt(sums.numerator / sums.denominator);
}

ReferenceExperts::ReferenceExperts(ExpertStore store, const GuardConfig& config)
    : config_(config),
      store_(std::move(store)),
      experts_(store_),
      known_errors_(static_cast<size_t>(store_.num_layers())),
      scratch_(store_, kMostRows),
      row_index_(Tensor::empty({kMostRows}, DType::kI32)),
      row_offsets_(Tensor::empty({most_slots(store_) + 1}, DType::kI32)),
      out_(Tensor::empty({kMostRows, store_.hidden_size()}, DType::kF32)) {
  chosen_.reserve(static_cast<size_t>(kMostRows));
}

void ReferenceExperts::learn(const KnownErrors& errors) {
  const std::lock_guard lock(mutex_);
  CHECK_EQ(errors.size(), known_errors_.size());
  for (size_t layer = 0; layer < errors.size(); ++layer) {
    for (const auto& [format, error] : errors[layer]) known_errors_[layer][format] = error;
  }
}

bool ReferenceExperts::knows(int moe_layer, const WeightFormat& format) const {
  const std::lock_guard lock(mutex_);
  return known_errors_.at(static_cast<size_t>(moe_layer)).contains(name_of(format));
}

void ReferenceExperts::serve(const ExpertStore& served) {
  const std::lock_guard lock(mutex_);
  allowed_errors_.clear();
  for (int layer = 0; layer < served.num_layers(); ++layer) {
    std::vector<double>& allowed = allowed_errors_.emplace_back();
    const std::map<std::string, double>& known = known_errors_.at(static_cast<size_t>(layer));
    for (const ExpertSlot& slot : served.slots(layer)) {
      const auto error = known.find(name_of(slot.format));
      CHECK(error != known.end()) << "nobody knows what " << name_of(slot.format) << " costs in MoE layer " << layer;
      allowed.push_back(allowed_error(config_, error->second));
    }
  }
  windows_.resize(allowed_errors_.size());
  for (size_t layer = 0; layer < windows_.size(); ++layer) windows_[layer].resize(allowed_errors_[layer].size());
  forget();
}

void ReferenceExperts::observe(int moe_layer, const ExpertBatch& batch, const Tensor& out, Stream& stream) {
  choose_rows(batch);
  if (chosen_.empty()) return;
  const auto num_rows = static_cast<int64_t>(chosen_.size());
  Tensor reference_out = out_.first(num_rows);
  experts_.forward(moe_layer, {batch.tokens, row_index_.first(num_rows), row_offsets_.first(batch.row_offsets.num_elements())},
                   scratch_, reference_out, stream);
  compare(moe_layer, out);
}

// By the number of the row among all that came: neither an expert nor a place in the batch is seen more often than others.
bool ReferenceExperts::is_chosen() {
  const double place = static_cast<double>(mix(num_seen_rows_++) >> 11) * 0x1p-53;
  return place < config_.share && static_cast<int64_t>(chosen_.size()) < kMostRows;
}

void ReferenceExperts::choose_rows(const ExpertBatch& batch) {
  chosen_.clear();
  const int32_t* offsets = batch.row_offsets.data<int32_t>();
  const int64_t num_slots = batch.row_offsets.num_elements() - 1;
  row_offsets_.data<int32_t>()[0] = 0;
  for (int64_t slot = 0; slot < num_slots; ++slot) {
    for (int32_t row = offsets[slot]; row < offsets[slot + 1]; ++row) {
      if (!is_chosen()) continue;
      row_index_.data<int32_t>()[chosen_.size()] = batch.row_index.data<int32_t>()[row];
      chosen_.push_back(row);
    }
    row_offsets_.data<int32_t>()[slot + 1] = static_cast<int32_t>(chosen_.size());
  }
}

void ReferenceExperts::compare(int moe_layer, const Tensor& out) {
  std::vector<SlidingSums>& windows = windows_[static_cast<size_t>(moe_layer)];
  for (size_t slot = 0; slot < windows.size(); ++slot) {
    const int32_t* offsets = row_offsets_.data<int32_t>() + slot;
    for (int32_t i = offsets[0]; i < offsets[1]; ++i) {
      const RatioSums sums =
          squared_errors(out.row<float>(chosen_[static_cast<size_t>(i)]), out_.row<float>(i), store_.hidden_size());
      windows[slot].add(sums, config_.window_rows);
      so_far_.num_rows_so_far += 1;
      so_far_.error_so_far += sums.numerator;
      so_far_.output_so_far += sums.denominator;
    }
  }
}

GuardReading ReferenceExperts::reading() const {
  GuardReading worst = so_far_;
  for (size_t layer = 0; layer < windows_.size(); ++layer) {
    for (size_t slot = 0; slot < windows_[layer].size(); ++slot) {
      const RatioSums sums = windows_[layer][slot].total();
      if (sums.count < config_.min_rows) continue;
      GuardReading one = so_far_;
      one.moe_layer = static_cast<int32_t>(layer);
      one.expert = store_.slots(static_cast<int>(layer))[slot].expert;
      one.relative_error = skipper::relative_error(sums);
      one.allowed_error = allowed_errors_[layer][slot];
      one.num_rows = sums.count;
      if (one.excess() > worst.excess() || !worst.has_expert()) worst = one;
    }
  }
  return worst;
}

void ReferenceExperts::forget() {
  for (std::vector<SlidingSums>& layer : windows_) {
    for (SlidingSums& window : layer) window.clear();
  }
}

}  // namespace skipper
