// Measures what the machines of a group do: the parts of machine.json, with all ranks at work at the same time.
#pragma once

#include <cstddef>
#include <filesystem>
#include <vector>

#include "base/thread_pool.h"
#include "cluster/cluster_topology.h"
#include "comm/communicator_factory.h"
#include "kernels/weight_format.h"
#include "launcher/progress_line.h"
#include "machine/machine_profile.h"
#include "tensor/device.h"

namespace skipper {

struct MeasuredParts {
  std::filesystem::path disk;  // directory of a temporary file; empty: none is measured
  std::vector<WeightFormat> formats;
  Device device;               // a GPU, or the host where none is measured
};

class MachineMeasurement {
 public:
  // With open communicators.
  MachineMeasurement(ProcessGroup& group, const ClusterTopology& topology, ThreadPool& workers);

  // All ranks call it together. The profile is the same on all: samples of all ranks, and the host of rank 0. Throws Error
  // on all ranks where a part cannot be measured.
  MachineProfile measure(const MeasuredParts& parts);

 private:
  MeasuredRate pooled(std::vector<double> own);
  MeasuredRate memory_read();
  MeasuredRate disk_read(const std::filesystem::path& directory);
  ProductRates product(const WeightFormat& format);
  std::optional<LinkRates> link(Hop hop);
  void measure_device(Device device, MachineProfile& machine);
  void show_progress();

  ProcessGroup& group_;
  const ClusterTopology& topology_;
  ThreadPool& workers_;
  ProgressLine progress_;
  size_t num_parts_ = 0;
  size_t num_done_ = 0;
};

}  // namespace skipper
