// Starts mpirun on mpi_scenario_program and looks at what it prints, how it ends and how long it takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace skipper {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

struct Outcome {
  std::string output;  // of all ranks and mpirun, both streams
  int status = 0;
  double seconds = 0.0;
};

Outcome run_two_ranks(const std::string& scenario, int deadline_ms, const std::string& environment = "") {
  const std::string command =
      SKIPPER_MPIRUN " -n 2 " + environment + " " SKIPPER_SCENARIO_PROGRAM " " + scenario + " " +
      std::to_string(deadline_ms) + " 2>&1";
  Outcome outcome;
  const auto start = std::chrono::steady_clock::now();
  FILE* pipe = popen(command.c_str(), "r");
  std::array<char, 4096> text;
  while (const size_t length = std::fread(text.data(), 1, text.size(), pipe)) outcome.output.append(text.data(), length);
  const int status = pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return outcome;
}

TEST(MpiGroup, EndsWithTheLineThatNamesWhereARankWaitedWhenAnotherDoesNotCome) {
  const Outcome outcome = run_two_ranks("rank_1_does_not_come", 300);
  EXPECT_THAT(outcome.output, HasSubstr("skipper: error: rank 0: step 17, layer 3, dispatch: barrier did not complete "
                                        "within 300 ms; a rank may be dead or overloaded (raise comm.deadline_ms)\n"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_LT(outcome.seconds, 20.0);  // rank 1 would sleep for 60
}

TEST(MpiGroup, EndsBeforeTheDeadlineWhenARankAborts) {
  const Outcome outcome = run_two_ranks("rank_1_aborts", 60000);
  // Its own error line, and no log line beside it: it ended in time.
  EXPECT_THAT(outcome.output, testing::Not(HasSubstr("rank 1 ends the group")));
  EXPECT_THAT(outcome.output, HasSubstr("skipper: error: rank 1: step 5, plan: barrier: the group was aborted: rank 1 ran "
                                        "out of memory\n"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_LT(outcome.seconds, 20.0);
}

TEST(MpiGroup, EndsWhenAnotherThreadAbortsARankThatHangs) {
  const Outcome outcome = run_two_ranks("rank_1_is_aborted_while_it_hangs", 60000);
  EXPECT_THAT(outcome.output, HasSubstr("rank 1 ends the group: the engine hangs"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_LT(outcome.seconds, 20.0);
}

TEST(MpiGroup, EndsWithoutWaitingInFinalizeWhenARankThrows) {
  const Outcome outcome = run_two_ranks("rank_1_throws", 60000);
  EXPECT_THAT(outcome.output, HasSubstr("skipper: error: model.safetensors: truncated\n"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_LT(outcome.seconds, 20.0);
}

TEST(MpiGroup, EndsWhenARankThrowsBetweenStartAndFinish) {
  const Outcome outcome = run_two_ranks("rank_1_drops_an_operation", 60000);
  EXPECT_THAT(outcome.output, HasSubstr("skipper: error: thrown between start and finish\n"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_LT(outcome.seconds, 20.0);
}

TEST(MpiGroup, FailsWhenAMessageIsShorterThanExpected) {
  const Outcome outcome = run_two_ranks("message_is_too_short", 5000);
  EXPECT_THAT(outcome.output, HasSubstr("rank 1: all_to_all_v: rank 0 gave 3 bytes where 4 were expected"));
  EXPECT_NE(outcome.status, 0);
}

TEST(MpiGroup, FailsWhenAMessageIsLongerThanExpected) {
  const Outcome outcome = run_two_ranks("message_is_too_long", 5000);
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("rank 1: all_to_all_v: "), HasSubstr("truncated")));
  EXPECT_NE(outcome.status, 0);
}

TEST(MpiGroup, RefusesAPartThatMpiCannotCount) {
  const Outcome outcome = run_two_ranks("part_is_over_two_gigabytes", 5000);
  EXPECT_THAT(outcome.output, HasSubstr("rank 0: all_to_all_v: 2147483648 bytes for one rank, more than the limit of "
                                        "2147483647; lower the tokens per step"));
  EXPECT_NE(outcome.status, 0);
}

json read_report(const std::filesystem::path& path) {
  std::ifstream file(path);
  return json::parse(file);
}

TEST(PmpiByteCounter, CountsExactlyWhatEachCommunicatorSent) {
  const auto report = std::filesystem::path(testing::TempDir()) / "pmpi_bytes.json";
  for (const char* rank : {".0", ".1"}) std::filesystem::remove(report.string() + rank);
  // The counter is not built with sanitizers; it may come before their runtime.
  const Outcome outcome = run_two_ranks("known_traffic", 20000,
                                        "-x ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0"
                                        " -x LD_PRELOAD=" SKIPPER_PMPI_BYTE_COUNTER
                                        " -x PMPI_BYTES_OUT=" + report.string());
  ASSERT_EQ(outcome.status, 0) << outcome.output;

  const json rank_0 = read_report(report.string() + ".0");
  EXPECT_EQ(rank_0["rank"], 0);
  const json& control = rank_0["communicators"]["skipper-control"];
  EXPECT_EQ(control["MPI_Ibcast"], (json{{"calls", 1}, {"bytes", 1000}}));
  EXPECT_EQ(control["MPI_Iallgather"], (json{{"calls", 1}, {"bytes", 10}}));
  EXPECT_EQ(control["MPI_Isend"], (json{{"calls", 1}, {"bytes", 77}}));
  EXPECT_EQ(control["MPI_Ibarrier"], (json{{"calls", 1}, {"bytes", 0}}));
  // Three exchanges; neither the part to oneself nor the empty exchange sends a message.
  EXPECT_EQ(rank_0["communicators"]["skipper-data"], (json{{"MPI_Isend", {{"calls", 3}, {"bytes", 3 * 5}}}}));

  const json rank_1 = read_report(report.string() + ".1");
  EXPECT_EQ(rank_1["communicators"]["skipper-data"], (json{{"MPI_Isend", {{"calls", 3}, {"bytes", 3 * 8}}}}));
  EXPECT_EQ(rank_1["communicators"]["skipper-control"]["MPI_Ibcast"], (json{{"calls", 1}, {"bytes", 0}}));
  EXPECT_FALSE(rank_1["communicators"]["skipper-control"].contains("MPI_Isend"));
}

}  // namespace
}  // namespace skipper
