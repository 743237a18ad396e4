#include "machine/machine_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace skipper {
namespace {

using testing::HasSubstr;

constexpr MeasuredRate kRate{2e9, 1e9, 3e9, 5};

MachineProfile some_machine() {
  MachineProfile machine;
  machine.host = {.name = "node0", .processor = "Some CPU (avx2)", .num_cores = 4, .gpu = {}};
  machine.ranks_per_host = 2;
  machine.threads_per_rank = 3;
  machine.memory_read = kRate;
  machine.disk_read = kRate;
  machine.node_link = LinkRates{{1e-6, 5e-7, 2e-6, 9}, kRate};
  machine.products = {{"bf16", {kRate, kRate}}, {"int4a-g32", {kRate, kRate}}};
  return machine;
}

class MachineProfileFile : public testing::Test {
 protected:
  ~MachineProfileFile() override { std::filesystem::remove(path_); }

  MachineProfile load(const std::string& text) {
    std::ofstream(path_) << text;
    return load_machine_profile(path_);
  }
  std::string refusal(const std::string& from, const std::string& to) {
    std::string text = to_json(some_machine());
    text.replace(text.find(from), from.size(), to);
    try {
      load(text);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  const std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("machine_profile_test_" + std::to_string(getpid()));
};

TEST_F(MachineProfileFile, ComesBackAsItWasWritten) {
  MachineProfile machine = some_machine();
  EXPECT_EQ(load(to_json(machine)), machine);
  machine.host.gpu = "Some GPU";
  machine.bus = machine.device_memory = kRate;
  machine.network_link = machine.node_link;
  machine.disk_read.reset();
  EXPECT_EQ(load(to_json(machine)), machine);
}

TEST_F(MachineProfileFile, RefusesWhatIsNoRate) {
  EXPECT_THAT(refusal("\"cores\": 4", "\"cores\": 0"), HasSubstr("host: cores: 0"));
  EXPECT_THAT(refusal("\"lowest\": 1000000000.0", "\"lowest\": 9e9"), HasSubstr("memory_read: lowest"));
  EXPECT_THAT(refusal("\"int4a-g32\"", "\"int9\""), HasSubstr("int9"));
  EXPECT_THAT(refusal("\"ranks_per_host\"", "\"ranks\""), HasSubstr("ranks_per_host"));
  EXPECT_THAT(refusal("\"disk_read\"", "\"disc_read\""), HasSubstr("disc_read"));
}

TEST(MachineReport, SaysWhatThereIsNotAndHowFarSamplesSpread) {
  const std::string report = machine_report(some_machine());
  EXPECT_THAT(report, HasSubstr("2.00 GB/s   1.00 to 3.00, 5 samples"));
  EXPECT_THAT(report, HasSubstr("1.00 us"));
  EXPECT_THAT(report, testing::ContainsRegex("bus to the GPU +n/a"));
}

TEST(HostIdentity, NamesWhatIsOtherThanWhereItWasMeasured) {
  const HostIdentity here = this_host();
  EXPECT_GT(here.num_cores, 0);
  EXPECT_FALSE(here.processor.empty());
  HostIdentity other = here;
  other.name = "another of the same kind";
  EXPECT_EQ(difference(other, here), "");
  other.num_cores = here.num_cores + 6;
  EXPECT_THAT(difference(other, here), HasSubstr("cores " + std::to_string(other.num_cores) + ", here "));
  other.processor = "Another CPU";
  EXPECT_THAT(difference(other, here), HasSubstr("processor Another CPU, here "));
  other = here;
  other.gpu = "A GPU that nobody has";
  EXPECT_THAT(difference(other, here), HasSubstr("GPU A GPU that nobody has, here "));
}

}  // namespace
}  // namespace skipper
