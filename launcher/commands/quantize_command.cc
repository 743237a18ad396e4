#include "launcher/commands/quantize_command.h"

#include <atomic>
#include <chrono>
#include <cstdio>

#include "base/error.h"
#include "launcher/calibration.h"
#include "launcher/core_share.h"
#include "launcher/error_line.h"
#include "launcher/progress_line.h"
#include "launcher/signal_watcher.h"
#include "quantization/checkpoint_quantizer.h"

namespace skipper {
namespace {

constexpr size_t kMegabyte = 1'000'000;

WeightFormat format_from(const std::string& text, const std::string& flag) {
  try {
    const WeightFormat format = parse_weight_format(text, flag);
    if (format.kind == WeightKind::kF32) throw UsageError(flag + ": f32 is no format to quantise to; use bf16 or an integer one");
    return format;
  } catch (const InvalidRequest& error) {
    throw UsageError(error.what());
  }
}

QuantizationRequest request_from(const CommandLine& line) {
  QuantizationRequest request{
      .model = line.model, .out = line.out, .experts = format_from(line.experts, "flag --experts"), .dense = {}};
  if (!line.dense.empty()) request.dense = format_from(line.dense, "flag --dense");
  return request;
}

// Rounding to BF16 has no choice that measured inputs could make.
void check_calibration(const CommandLine& line, const QuantizationRequest& request) {
  if (line.calibration.empty()) return;
  if (!request.experts.is_integer() && !(request.dense && request.dense->is_integer())) {
    throw UsageError("flag --calibration: " + name_of(request.experts) +
                     " weights are not rounded to codes; leave it out, or ask for an integer format in --experts or --dense");
  }
  if (num_launched_ranks() == 1) return;
  throw UsageError("flag --calibration: quantize runs the model in one process, but " + std::to_string(num_launched_ranks()) +
                   " were started; run it without mpirun");
}

// Times the rounding alone: it starts anew after a calibration.
struct RoundingClock {
  ProgressLine show_progress{"quantising, MB"};
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();

  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }
};

int threads_from(const CommandLine& line) {
  return line.threads > 0 ? line.threads : static_cast<int>(usable_cores().count());
}

void print_weights(const char* title, const WeightFormat& format, const PackedWeights& weights) {
  std::printf("%s: %s, %.3f bits per weight, relative error %.4f %%\n", title, name_of(format).c_str(), weights.bits_per_weight(),
              100.0 * weights.relative_error());
}

void print_report(const QuantizationRequest& request, const QuantizationReport& report, double seconds) {
  const double before = 1e-6 * static_cast<double>(report.bytes_before);
  const double after = 1e-6 * static_cast<double>(report.bytes_after);
  std::printf("%s: %.1f MB, from %.1f MB (%.1f %%), in %.1f s (%.0f MB/s)\n", request.out.c_str(), after, before,
              100.0 * after / before, seconds, before / seconds);
  print_weights("experts", request.experts, report.experts);
  if (request.dense) print_weights("dense", *request.dense, report.dense);
}

}  // namespace

int run_quantize(const CommandLine& line) {
  if (!is_first_rank()) return 0;
  QuantizationRequest request = request_from(line);
  check_calibration(line, request);
  std::atomic<bool> is_stopped{false};
  block_stop_signals();
  const SignalWatcher watcher([&](StopSignal) { is_stopped = true; });
  const auto check_stopped = [&] {
    if (is_stopped) throw Cancelled("stopped by a signal; " + line.out + " was not made");
  };
  RoundingClock clock;
  if (!line.calibration.empty()) {
    request.calibrate = [&] {
      Calibration calibration = calibrate(line, check_stopped);
      clock = {};
      return calibration;
    };
  }
  ThreadPool workers(threads_from(line));
  const QuantizationReport report = quantize_checkpoint(request, workers, [&](size_t done, size_t total) {
    check_stopped();
    clock.show_progress(done / kMegabyte, total / kMegabyte);
  });
  print_report(request, report, clock.seconds());
  return 0;
}

}  // namespace skipper
