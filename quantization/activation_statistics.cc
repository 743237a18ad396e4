#include "quantization/activation_statistics.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace skipper {
namespace {

constexpr double kDamping = 0.01;
// Of a row, for one thread at a time.
constexpr int64_t kChannelsPerTask = 512;

int64_t width_of(const Tensor& rows) { return rows.dim(0) == 0 ? 0 : rows.num_elements() / rows.dim(0); }

// Rows [begin, end) of one matrix, and where their squares go.
struct RowSegment {
  ChannelSquares* target = nullptr;
  int64_t begin = 0, end = 0;
};

struct ChannelRange {
  int64_t begin = 0, end = 0;
};

template <typename T>
void add_squares(const ObservedRows& rows, const RowSegment& segment, const ChannelRange& channels) {
  const int64_t width = width_of(rows.rows);
  const int32_t* index = rows.row_index == nullptr ? nullptr : rows.row_index->data<int32_t>();
  double* sums = segment.target->sums.data();
  for (int64_t row = segment.begin; row < segment.end; ++row) {
    const T* values = rows.rows.data<T>() + (index == nullptr ? row : index[row]) * width;
    for (int64_t channel = channels.begin; channel < channels.end; ++channel) {
      const auto value = static_cast<double>(static_cast<float>(values[channel]));
      sums[channel] += value * value;
    }
  }
}

std::vector<float> damped_means(const ChannelSquares& squares) {
  const double total = std::accumulate(squares.sums.begin(), squares.sums.end(), 0.0);
  if (!std::isfinite(total)) {
    throw InvalidFile("the model's activations over the calibration data hold NaN or infinite values; check checkpoint and data");
  }
  if (total == 0) return {};
  const auto num_rows = static_cast<double>(squares.num_rows);
  const double damping = kDamping * total / static_cast<double>(squares.sums.size()) / num_rows;
  std::vector<float> means;
  for (const double sum : squares.sums) means.push_back(static_cast<float>(sum / num_rows + damping));
  return means;
}

}  // namespace

void ActivationStatistics::add(const ObservedRows& rows, Stream& stream) {
  const int64_t width = width_of(rows.rows);
  std::vector<RowSegment> segments;
  const auto add_segment = [&](int expert, int64_t begin, int64_t end) {
    if (begin == end) return;
    ChannelSquares& squares = inputs_[{rows.input, rows.layer, expert}];
    squares.sums.resize(static_cast<size_t>(width));
    squares.num_rows += end - begin;
    segments.push_back({&squares, begin, end});
  };
  if (rows.row_offsets == nullptr) {
    add_segment(-1, 0, rows.rows.dim(0));
  } else {
    const int32_t* offsets = rows.row_offsets->data<int32_t>();
    for (size_t slot = 0; slot < rows.slots.size(); ++slot) {
      add_segment(rows.slots[slot].expert, offsets[slot], offsets[slot + 1]);
    }
  }
  const int64_t ranges = (width + kChannelsPerTask - 1) / kChannelsPerTask;
  stream.workers().parallel_for(static_cast<int64_t>(segments.size()) * ranges, [&](int64_t task) {
    const int64_t begin = task % ranges * kChannelsPerTask;
    const ChannelRange channels{begin, std::min(begin + kChannelsPerTask, width)};
    const RowSegment& segment = segments[static_cast<size_t>(task / ranges)];
    if (rows.rows.dtype() == DType::kBF16) return add_squares<bf16>(rows, segment, channels);
    add_squares<float>(rows, segment, channels);
  });
}

const ChannelSquares* ActivationStatistics::find(const InputKey& key) const {
  const auto found = inputs_.find(key);
  return found == inputs_.end() ? nullptr : &found->second;
}

int64_t ActivationStatistics::num_measured_experts() const {
  return std::ranges::count_if(inputs_, [](const auto& entry) {
    const auto& [key, squares] = entry;
    return key.expert >= 0 && key.input == MatrixInput::kDown && squares.num_rows >= kLeastRows;
  });
}

ChannelSquares ActivationStatistics::of_all_experts(const InputKey& key) const {
  ChannelSquares all;
  for (auto it = inputs_.lower_bound({key.input, key.layer, 0}); it != inputs_.end(); ++it) {
    const auto& [other, squares] = *it;
    if (other.input != key.input || other.layer != key.layer) break;
    all.sums.resize(squares.sums.size());
    std::ranges::transform(all.sums, squares.sums, all.sums.begin(), std::plus<>());
    all.num_rows += squares.num_rows;
  }
  return all;
}

std::vector<float> ActivationStatistics::importance(const InputKey& key) const {
  const ChannelSquares* own = find(key);
  if (own != nullptr && own->num_rows >= kLeastRows) return damped_means(*own);
  if (key.expert < 0 || key.input != MatrixInput::kGateUp) return {};
  const ChannelSquares all = of_all_experts(key);
  return all.num_rows >= kLeastRows ? damped_means(all) : std::vector<float>();
}

}  // namespace skipper
