#include "expert_parallel/cuda/device_tallies.h"

#include <glog/logging.h>

#include "expert_parallel/cuda/traffic_tally.h"

namespace skipper::cuda {

namespace {

void copy(const Tensor& from, Tensor& to, Stream& stream) {
  copy_bytes({from.bytes(), from.device(), to.bytes(), to.device(), from.num_bytes()}, stream);
}

// fetched − known, which is brought up to date.
std::vector<int64_t> take_news(const Tensor& fetched, std::vector<int64_t>& known) {
  std::vector<int64_t> news(known.size());
  for (size_t i = 0; i < news.size(); ++i) {
    const int64_t sum = fetched.data<int64_t>()[i];
    news[i] = sum - known[i];
    known[i] = sum;
  }
  return news;
}

void add_wire_bytes(const std::vector<int64_t>& news, TrafficCounters& traffic) {
  for (size_t direction = 0; direction < kNumDirections; ++direction) {
    for (size_t hop = 0; hop < kNumHops; ++hop) {
      traffic.wire_bytes[direction][hop] += news[kWireBytesAt + direction * kNumHops + hop];
    }
  }
}

}  // namespace

DeviceTallies::DeviceTallies(int num_moe_layers, Device device, int64_t num_experts)
    : pair_counts_(Tensor::zeros({num_moe_layers, kNumTokenPhases, kNumTokenClasses, kNumPairOutcomes}, DType::kI64, device)),
      expert_loads_(Tensor::zeros({num_moe_layers, kNumTokenClasses, num_experts}, DType::kI64, device)),
      traffic_(Tensor::zeros({kNumTrafficTallies}, DType::kI64, device)),
      fetched_pair_counts_(pair_counts_.shape(), DType::kI64),
      fetched_traffic_(traffic_.shape(), DType::kI64),
      known_pair_counts_(static_cast<size_t>(pair_counts_.num_elements())),
      known_traffic_(static_cast<size_t>(kNumTrafficTallies)) {}

Tensor DeviceTallies::expert_loads(int moe_layer) const {
  return expert_loads_.num_elements() > 0 ? expert_loads_.at(moe_layer) : Tensor();
}

std::vector<int64_t> DeviceTallies::fetch_expert_loads(Stream& stream) const {
  Tensor host = Tensor::empty(expert_loads_.shape(), DType::kI64);
  copy(expert_loads_, host, stream);
  stream.synchronize();
  return {host.span<int64_t>().begin(), host.span<int64_t>().end()};
}

void DeviceTallies::queue_fetch(Stream& stream) {
  copy(pair_counts_, fetched_pair_counts_.tensor(), stream);
  copy(traffic_, fetched_traffic_.tensor(), stream);
}

void DeviceTallies::add_news(const RowBytes& row_bytes, PairCounters& pairs, TrafficCounters& traffic) {
  add_pairs(pairs, traffic);
  add_traffic(row_bytes, traffic);
}

void DeviceTallies::discard_news(TrafficCounters& traffic) {
  take_news(fetched_pair_counts_.tensor(), known_pair_counts_);
  add_wire_bytes(take_news(fetched_traffic_.tensor(), known_traffic_), traffic);
}

void DeviceTallies::keep_expert_loads(Stream& stream) {
  if (expert_loads_.num_elements() == 0) return;
  const Device device = expert_loads_.device();
  if (!kept_expert_loads_.defined()) kept_expert_loads_ = Tensor::zeros(expert_loads_.shape(), DType::kI64, device);
  copy(expert_loads_, kept_expert_loads_, stream);
}

void DeviceTallies::restore_expert_loads(Stream& stream) {
  if (kept_expert_loads_.defined()) copy(kept_expert_loads_, expert_loads_, stream);
}

void DeviceTallies::add_pairs(PairCounters& pairs, TrafficCounters& traffic) {
  const std::vector<int64_t> news = take_news(fetched_pair_counts_.tensor(), known_pair_counts_);
  CHECK_EQ(pairs.counts().size(), news.size());
  for (size_t i = 0; i < news.size(); ++i) {
    pairs.counts()[i] += news[i];
    const size_t token_class = i / kNumPairOutcomes % kNumTokenClasses;
    const bool has_run = static_cast<PairOutcome>(i % kNumPairOutcomes) == PairOutcome::kRun;
    (has_run ? traffic.pairs_run : traffic.pairs_skipped)[token_class] += news[i];
  }
}

void DeviceTallies::add_traffic(const RowBytes& row_bytes, TrafficCounters& traffic) {
  const std::vector<int64_t> news = take_news(fetched_traffic_.tensor(), known_traffic_);
  const int64_t bytes_of_row[kNumDirections] = {row_bytes.dispatch, row_bytes.combine};
  for (size_t direction = 0; direction < kNumDirections; ++direction) {
    for (size_t hop = 0; hop < kNumHops; ++hop) {
      for (size_t c = 0; c < kNumTokenClasses; ++c) {
        const size_t at = (direction * kNumHops + hop) * kNumTokenClasses + c;
        traffic.payload_bytes[direction][hop][c] += news[kSentRowsAt + at] * bytes_of_row[direction];
        traffic.saved_bytes[direction][hop][c] += news[kSavedRowsAt + at] * bytes_of_row[direction];
      }
    }
  }
  add_wire_bytes(news, traffic);
}

}  // namespace skipper::cuda
