#include "launcher/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"

namespace skipper {
namespace {

using testing::HasSubstr;

std::string usage_error(const std::vector<std::string>& arguments) {
  try {
    parse_command_line(arguments);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Flags, ReadsBothSpellingsOfAValue) {
  const CommandLine line = parse_command_line({"serve", "--model=m", "--port", "0", "-host=::1"});
  EXPECT_EQ(line.command, "serve");
  EXPECT_EQ(line.model, "m");
  EXPECT_EQ(line.port, 0);
  EXPECT_EQ(line.host, "::1");
}

TEST(Flags, ReadsFlagFilesAndRefusesCircles) {
  const std::string path = testing::TempDir() + "/serve.flags";
  std::ofstream(path) << "# a comment\n--model=from_file\n\n--port=81\n";
  const CommandLine line = parse_command_line({"serve", "--flagfile", path});
  EXPECT_EQ(line.model, "from_file");
  EXPECT_EQ(line.port, 81);
  std::ofstream(path) << "--flagfile=" << path << "\n";
  EXPECT_THAT(usage_error({"serve", "--flagfile=" + path}), HasSubstr("too deeply"));
  EXPECT_THAT(usage_error({"serve", "--flagfile=/nonexistent"}), HasSubstr("/nonexistent"));
}

TEST(Flags, NamesTheNearestCommandAndFlag) {
  EXPECT_THAT(usage_error({"evla"}), HasSubstr("did you mean 'eval'?"));
  EXPECT_THAT(usage_error({"serve", "--prot", "1"}), HasSubstr("did you mean '--port'?"));
  EXPECT_THAT(usage_error({"eval", "--port", "1"}), HasSubstr("belongs to 'skipper serve'"));
}

TEST(Flags, ReadsANumberOfThreadsAndRefusesOthers) {
  EXPECT_THAT(usage_error({"eval", "--model=m", "--data=d", "--threads=-2"}), HasSubstr("--threads: -2 is negative"));
  EXPECT_THAT(usage_error({"serve", "--model=m", "--threads=1025"}), HasSubstr("--threads: 1025 is out of range"));
  EXPECT_EQ(parse_command_line({"eval", "--model=m", "--data=d", "--threads=3"}).threads, 3);
  EXPECT_EQ(parse_command_line({"eval", "--model=m", "--data=d", "--threads=0"}).threads, 0);
}

TEST(Flags, ReadsADeviceAndRefusesOthers) {
  EXPECT_EQ(parse_command_line({"eval", "--model=m", "--data=d", "--device=cuda"}).device, "cuda");
  EXPECT_THAT(usage_error({"serve", "--model=m", "--device=gpu"}), HasSubstr("--device: 'gpu' is unknown"));
  EXPECT_THAT(usage_error({"replay", "--audit=a", "--device=cpu"}), HasSubstr("--device belongs to"));
  EXPECT_EQ(parse_command_line({"serve", "--model=m", "--device=auto"}).device, "auto");
}

TEST(Flags, QuantizeNeedsAFormatAndAnOutput) {
  // Flags keep their values between parses: what is missing comes first.
  EXPECT_THAT(usage_error({"quantize", "--model=m", "--experts="}), HasSubstr("--out is missing"));
  EXPECT_THAT(usage_error({"quantize", "--model=m", "--out=o"}), HasSubstr("--experts is missing"));
  const CommandLine line = parse_command_line({"quantize", "--model=m", "--experts=int4a-g32", "--dense=int8-g64", "--out=o"});
  EXPECT_EQ(line.experts, "int4a-g32");
  EXPECT_EQ(line.dense, "int8-g64");
  EXPECT_EQ(line.out, "o");
  EXPECT_THAT(usage_error({"serve", "--model=m", "--out=o"}),
              HasSubstr("--out belongs to 'skipper calibrate', 'skipper experts', 'skipper frontier', 'skipper machine', "
                        "'skipper plan', 'skipper profile', 'skipper quantize', not to"));
}

TEST(Flags, ACalibrationLimitNeedsDataAndASample) {
  // Flags keep their values between parses: what is missing comes first.
  const std::vector<std::string> quantize{"quantize", "--model=m", "--experts=int4a-g32", "--out=o"};
  const auto with = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> all = quantize;
    all.insert(all.end(), flags.begin(), flags.end());
    return all;
  };
  EXPECT_THAT(usage_error(with({"--calibration_limit=7"})), HasSubstr("7 needs --calibration"));
  const CommandLine line = parse_command_line(with({"--calibration=c.jsonl", "--calibration_limit=7"}));
  EXPECT_EQ(line.calibration, "c.jsonl");
  EXPECT_EQ(line.calibration_limit, 7);
  EXPECT_THAT(usage_error(with({"--calibration_limit=0"})), HasSubstr("0 samples tell nothing"));
  parse_command_line(with({"--calibration_limit=7"}));
  EXPECT_THAT(usage_error({"serve", "--model=m", "--calibration=c"}),
              HasSubstr("--calibration belongs to 'skipper frontier', 'skipper quantize', not to"));
}

TEST(Flags, RefusesAnUnknownWeightFormat) {
  EXPECT_THAT(usage_error({"eval", "--model=m", "--data=d", "--experts=int8-g65"}), HasSubstr("flag --experts"));
  EXPECT_THAT(usage_error({"serve", "--model=m", "--experts=bf16", "--dense=int9"}), HasSubstr("flag --dense"));
  const CommandLine line = parse_command_line({"serve", "--model=m", "--experts=int4a-g32", "--dense=int8-g64"});
  EXPECT_EQ(line.experts, "int4a-g32");
  EXPECT_EQ(line.dense, "int8-g64");
}

TEST(Flags, HelpShowsFlagsAndExamplesOfACommand) {
  EXPECT_EQ(parse_command_line({}).command, "help");
  EXPECT_EQ(parse_command_line({"serve", "--help"}).arguments, (std::vector<std::string>{"serve"}));
  EXPECT_THAT(help_text("serve"), testing::AllOf(HasSubstr("--operating_point"), HasSubstr("mpirun -n 4 skipper serve")));
  EXPECT_THAT(help_text(""), HasSubstr("eval"));
  EXPECT_THROW(help_text("nothing"), UsageError);
}

}  // namespace
}  // namespace skipper
