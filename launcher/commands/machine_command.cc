#include "launcher/commands/machine_command.h"

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "evaluation/frontier_file.h"
#include "launcher/core_share.h"
#include "launcher/device_choice.h"
#include "launcher/machine_measurement.h"
#include "launcher/startup_agreement.h"
#include "planning/analytic_profile.h"

namespace skipper {
namespace {

// Those that plans choose from, unless --formats names some.
std::vector<WeightFormat> formats_of(const std::string& text) {
  std::vector<WeightFormat> formats{WeightFormat{}};
  if (text.empty()) {
    const std::vector<WeightFormat> rounded = analytic_formats();
    formats.insert(formats.end(), rounded.begin(), rounded.end());
    return formats;
  }
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const WeightFormat format = parse_weight_format(text.substr(begin, end - begin), "flag --formats");
    if (std::ranges::find(formats, format) == formats.end()) formats.push_back(format);
    begin = end + 1;
  }
  return formats;
}

}  // namespace

int run_machine(const CommandLine& line) {
  ProcessGroup group = join_process_group();
  Stream stream;
  const ClusterTopology topology = ClusterTopology::discover(*group.startup, group.host_name, stream);
  MeasuredParts parts{.disk = line.disk, .formats = {}, .device = Device::host()};
  run_together(*group.startup, [&] {
    parts.formats = formats_of(line.formats);
    parts.device = choose_device(parse_device_choice(line.device), group.node_rank);
    if (group.startup->rank() == 0) require_writable(line.out);
  });
  open_communicators({}, group);
  ThreadPool workers(line.threads > 0 ? line.threads : core_share_of_this_rank(*group.startup, topology));
  const MachineProfile machine = MachineMeasurement(group, topology, workers).measure(parts);
  run_together(*group.startup, [&] {
    if (group.startup->rank() != 0) return;
    write_file_atomically(line.out, to_json(machine));
    std::fputs(machine_report(machine).c_str(), stdout);
  });
  return 0;
}

}  // namespace skipper
