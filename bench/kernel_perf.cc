// Products with packed weights against what the machine can do: arithmetic of one thread times threads, and memory reads.
#include <gflags/gflags.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "base/error.h"
#include "bench/arithmetic_peak.h"
#include "bench/benchmark_flags.h"
#include "bench/cold_read_rate.h"
#include "bench/product_cases.h"

DEFINE_int32(threads, 1, "threads that share each product");
DEFINE_string(formats, "bf16,int8-g64,int4-g32,int4a-g32", "weight formats, separated by commas");
DEFINE_string(rows, "1,4,16,64,512", "rows of the dense product");
DEFINE_string(tokens, "1,4,16,32,512", "tokens of the MoE layer");
DEFINE_int64(outputs, 1024, "output rows of the dense weight");
DEFINE_int64(inputs, 1024, "inputs of the dense weight");
DEFINE_int64(experts, 64, "experts of the MoE layer");
DEFINE_int64(top_k, 8, "experts of a token");
DEFINE_int64(hidden, 1024, "hidden size of the MoE layer");
DEFINE_int64(intermediate, 512, "intermediate size of an expert");
DEFINE_double(seconds, 0.3, "time spent on each case");

namespace skipper {
namespace {

constexpr char kIntroduction[] =
    "Times dense products and the experts of a MoE layer, weights from main memory, beside measured peaks of arithmetic and\n"
    "of memory reads. Each case is checked against double precision first. Best of all runs.\n\n"
    "  kernel_perf --threads 2 --formats bf16,int8-g64 --rows 1,512\n\n";

struct Bounds {
  double bytes_per_second = 0.0;
  double operations_per_second = 0.0;  // of the format's instruction, all threads
};

std::vector<WeightFormat> parse_formats() {
  std::vector<WeightFormat> formats;
  std::istringstream parts(FLAGS_formats);
  for (std::string part; std::getline(parts, part, ',');) formats.push_back(parse_weight_format(part, "flag --formats"));
  return formats;
}

// Rounding activations to BF16 costs about 0.2 %, to int8 about 1 %, twice in a row for the output of SwiGLU.
double allowed_error(const WeightFormat& format) { return format.is_integer() ? 0.03 : 0.005; }

double best_memory_rate(ThreadPool& workers) {
  constexpr int kRuns = 16;
  ColdReadRate memory(workers);
  for (int run = 0; run < kRuns; ++run) memory.measure();
  return memory.bytes_per_second();
}

double peak_of(const WeightFormat& format) {
  const ActivationFormat activations = format.is_integer()                  ? ActivationFormat::kInt8
                                       : format.kind == WeightKind::kBF16 ? ActivationFormat::kBF16
                                                                            : ActivationFormat::kF32;
  const ArithmeticPeak peak = measure_arithmetic_peak(activations, cpu::best_isa());
  std::cout << name_of(format) << ": " << peak.instruction << ' ' << peak.operations_per_second * 1e-9
            << " G operations/s a thread\n";
  return peak.operations_per_second * FLAGS_threads;
}

// Rates of the run in which they were highest, one line of the table.
void measure(const std::string& name, ProductCase& product, const Bounds& bounds, Stream& stream) {
  double operations_per_second = 0.0, bytes_per_second = 0.0, best_seconds = INFINITY;
  const auto start = std::chrono::steady_clock::now();
  const auto seconds_since = [](auto time) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - time).count();
  };
  do {
    const ProductWork work = product.next_work();
    const auto begin = std::chrono::steady_clock::now();
    product.run(stream);
    const double seconds = seconds_since(begin);
    best_seconds = std::min(best_seconds, seconds);
    operations_per_second = std::max(operations_per_second, work.operations / seconds);
    bytes_per_second = std::max(bytes_per_second, work.weight_bytes / seconds);
  } while (seconds_since(start) < FLAGS_seconds);
  std::cout << std::left << std::setw(34) << name << std::right << std::fixed << std::setprecision(1) << std::setw(10)
            << best_seconds * 1e6 << " us" << std::setw(9) << operations_per_second * 1e-9 << " G/s" << std::setw(6)
            << std::setprecision(0) << 100 * operations_per_second / bounds.operations_per_second << " %" << std::setprecision(1)
            << std::setw(8) << bytes_per_second * 1e-9 << " GB/s" << std::setw(6) << std::setprecision(0)
            << 100 * bytes_per_second / bounds.bytes_per_second << " %\n"
            << std::defaultfloat << std::setprecision(6);
}

void verify(const std::string& name, const WeightFormat& format, ProductCase& product, Stream& stream) {
  const double error = product.measure_error(stream);
  if (error <= allowed_error(format)) return;  // a NaN is not
  throw Error(name + ": relative error " + std::to_string(error) + " is more than " + std::to_string(allowed_error(format)));
}

void measure_format(const WeightFormat& format, Bounds bounds, Stream& stream) {
  bounds.operations_per_second = peak_of(format);
  const auto check_and_measure = [&](const std::string& name, std::unique_ptr<ProductCase> product) {
    verify(name, format, *product, stream);
    measure(name, *product, bounds, stream);
  };
  for (const int64_t rows : parse_sizes("rows", FLAGS_rows)) {
    check_and_measure(name_of(format) + " dense " + std::to_string(rows) + " rows",
                      make_dense_case(format, {rows, FLAGS_outputs, FLAGS_inputs}));
  }
  for (const int64_t tokens : parse_sizes("tokens", FLAGS_tokens)) {
    check_and_measure(name_of(format) + " experts " + std::to_string(tokens) + " tokens",
                      make_experts_case(format, {tokens, FLAGS_experts, FLAGS_top_k, FLAGS_hidden, FLAGS_intermediate}));
  }
}

void check_flags() {
  const std::pair<const char*, int64_t> counts[] = {
      {"threads", FLAGS_threads}, {"outputs", FLAGS_outputs}, {"inputs", FLAGS_inputs},           {"experts", FLAGS_experts},
      {"top_k", FLAGS_top_k},     {"hidden", FLAGS_hidden},   {"intermediate", FLAGS_intermediate}};
  for (const auto& [name, value] : counts) {
    if (value < 1) throw UsageError(std::string("flag --") + name + ": " + std::to_string(value) + " is less than 1");
  }
  if (FLAGS_top_k > FLAGS_experts) throw UsageError("flag --top_k: there are only " + std::to_string(FLAGS_experts) + " experts");
}

void run() {
  check_flags();
  const std::vector<WeightFormat> formats = parse_formats();
  ThreadPool workers(FLAGS_threads);
  Stream stream(workers);
  Bounds bounds;
  bounds.bytes_per_second = best_memory_rate(workers);
  std::cout << cpu::name_of(cpu::best_isa()) << ", " << FLAGS_threads << " threads, memory read "
            << bounds.bytes_per_second * 1e-9 << " GB/s\n";
  for (const WeightFormat& format : formats) measure_format(format, bounds, stream);
}

}  // namespace
}  // namespace skipper

int main(int argc, char** argv) {
  return skipper::benchmark_main({"kernel_perf", skipper::kIntroduction, __FILE__, skipper::run}, argc, argv);
}
