#include "machine/exchange_rate.h"

#include <chrono>

#include "machine/measured_rate.h"

namespace skipper {
namespace {

double seconds_of_rounds(Communicator& data, const ExchangeMeasurement& measurement) {
  const auto size = static_cast<size_t>(data.size());
  std::vector<int64_t> counts(size, 0);
  const int rank = data.rank();
  const bool takes_part = rank == measurement.pair.first || rank == measurement.pair.second;
  if (takes_part) {
    const int other = rank == measurement.pair.first ? measurement.pair.second : measurement.pair.first;
    counts[static_cast<size_t>(other)] = measurement.num_bytes;
  }
  std::vector<std::byte> sent(takes_part ? static_cast<size_t>(measurement.num_bytes) : 0), received(sent.size());
  Stream stream;
  data.barrier(stream);
  const auto start = std::chrono::steady_clock::now();
  for (int round = 0; round < measurement.num_rounds; ++round) {
    data.all_to_all_v({sent.data(), sent.size()}, counts, {received.data(), received.size()}, counts, stream);
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return elapsed.count() / measurement.num_rounds;
}

}  // namespace

std::vector<double> exchange_seconds(Communicator& data, const ExchangeMeasurement& measurement) {
  std::vector<double> seconds =
      sample_seconds(measurement.num_samples, [&] { return seconds_of_rounds(data, measurement); });
  // What the first of the pair saw is what all know.
  if (data.rank() != measurement.pair.first) seconds.assign(seconds.size(), 0.0);
  Stream stream;
  data.all_reduce_sum(seconds, stream);
  return seconds;
}

}  // namespace skipper
