#include "launcher/machine_measurement.h"

#include <optional>

#include "base/build_config.h"
#include "launcher/startup_agreement.h"
#include "machine/device_rates.h"
#include "machine/disk_read_rate.h"
#include "machine/exchange_rate.h"
#include "machine/memory_read_rate.h"
#include "machine/product_rate.h"
#include "tensor/cuda/pinned_tensor.h"

namespace skipper {
namespace {

constexpr int kNumSamples = 9;
constexpr size_t kDiskBytes = size_t{256} << 20;
constexpr int64_t kCopiedBytes = int64_t{256} << 20;
// Of a hidden row, and of the rows of a long prompt.
constexpr int64_t kSmallMessage = 1, kLargeMessage = int64_t{4} << 20;
constexpr int kSmallRounds = 200, kLargeRounds = 4;

// The first pair of ranks that far apart.
std::optional<RankPair> find_pair(const ClusterTopology& topology, Hop hop) {
  for (int other = 1; other < topology.num_ranks(); ++other) {
    if (topology.hop(0, other) == hop) return RankPair{0, other};
  }
  return std::nullopt;
}

int ranks_of_node(const ClusterTopology& topology, int node) {
  int count = 0;
  for (int rank = 0; rank < topology.num_ranks(); ++rank) count += topology.node_of(rank) == node ? 1 : 0;
  return count;
}

}  // namespace

MachineMeasurement::MachineMeasurement(ProcessGroup& group, const ClusterTopology& topology, ThreadPool& workers)
    : group_(group), topology_(topology), workers_(workers), progress_("measuring, parts") {}

MachineProfile MachineMeasurement::measure(const MeasuredParts& parts) {
  num_parts_ = 3 + parts.formats.size() + (parts.disk.empty() ? 0 : 1);
  MachineProfile machine;
  machine.host = this_host();
  machine.ranks_per_host = ranks_of_node(topology_, 0);
  machine.threads_per_rank = workers_.num_threads();
  machine.memory_read = memory_read();
  if (!parts.disk.empty()) machine.disk_read = disk_read(parts.disk);
  machine.node_link = link(Hop::kNode);
  machine.network_link = link(Hop::kNetwork);
  show_progress();
  for (const WeightFormat& format : parts.formats) machine.products[name_of(format)] = product(format);
  measure_device(parts.device, machine);
  return machine;
}

// All ranks measure at once, so each one's samples are worth as much.
MeasuredRate MachineMeasurement::pooled(std::vector<double> own) {
  std::vector<double> all(own.size() * static_cast<size_t>(topology_.num_ranks()));
  Stream stream;
  group_.startup->all_gather({reinterpret_cast<const std::byte*>(own.data()), own.size() * sizeof(double)},
                             {reinterpret_cast<std::byte*>(all.data()), all.size() * sizeof(double)}, stream);
  return rate_of(std::move(all));
}

MeasuredRate MachineMeasurement::memory_read() {
  MemoryReadRate memory(workers_);
  Stream stream;
  group_.startup->barrier(stream);
  const MeasuredRate rate = pooled(
      rates_from(static_cast<double>(memory.num_bytes()), sample_seconds(kNumSamples, [&] { return memory.measure_seconds(); })));
  show_progress();
  return rate;
}

MeasuredRate MachineMeasurement::disk_read(const std::filesystem::path& directory) {
  std::optional<DiskReadRate> disk;
  run_together(*group_.startup, [&] { disk.emplace(directory, kDiskBytes); });
  std::vector<double> seconds;
  run_together(*group_.startup, [&] { seconds = sample_seconds(kNumSamples, [&] { return disk->measure_seconds(); }); });
  const MeasuredRate rate = pooled(rates_from(static_cast<double>(disk->num_bytes()), std::move(seconds)));
  show_progress();
  return rate;
}

ProductRates MachineMeasurement::product(const WeightFormat& format) {
  ProductRate rate(format, workers_);
  Stream stream;
  group_.startup->barrier(stream);
  const std::vector<double> row = sample_seconds(kNumSamples, [&] { return rate.measure_row_seconds(); });
  const std::vector<double> tile = sample_seconds(kNumSamples, [&] { return rate.measure_tile_seconds(); });
  const ProductRates rates{pooled(rates_from(static_cast<double>(rate.num_bytes()), row)),
                           pooled(rates_from(rate.num_operations(), tile))};
  show_progress();
  return rates;
}

std::optional<LinkRates> MachineMeasurement::link(Hop hop) {
  const auto pair = find_pair(topology_, hop);
  if (!pair) return std::nullopt;
  const std::vector<double> small =
      exchange_seconds(*group_.data, {*pair, kSmallMessage, kSmallRounds, kNumSamples});
  const std::vector<double> large =
      exchange_seconds(*group_.data, {*pair, kLargeMessage, kLargeRounds, kNumSamples});
  return LinkRates{rate_of(small), rate_of(rates_from(static_cast<double>(kLargeMessage), large))};
}

void MachineMeasurement::measure_device(Device device, MachineProfile& machine) {
  if constexpr (kBuiltWithCuda) {
    if (device != Device::host()) {
      const cuda::PinnedTensor host({kCopiedBytes}, DType::kU8);
      DeviceRates rates(device, host.tensor());
      const auto num_bytes = static_cast<double>(rates.num_bytes());
      machine.bus = pooled(rates_from(num_bytes, sample_seconds(kNumSamples, [&] { return rates.measure_bus_seconds(); })));
      // A copy reads and writes.
      machine.device_memory =
          pooled(rates_from(2.0 * num_bytes, sample_seconds(kNumSamples, [&] { return rates.measure_memory_seconds(); })));
    }
  }
  show_progress();
}

void MachineMeasurement::show_progress() {
  ++num_done_;
  if (group_.startup->rank() == 0) progress_(num_done_, num_parts_);
}

}  // namespace skipper
