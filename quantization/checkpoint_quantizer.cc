#include "quantization/checkpoint_quantizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/json_fields.h"
#include "kernels/integer_packing.h"
#include "quantization/output_directory.h"
#include "quantization/quantization_plan.h"

namespace skipper {
namespace {

namespace fs = std::filesystem;

// A piece of a matrix for one thread: 1024 rows.
constexpr int64_t kPanelsPerTask = 64;
// Also a piece of work: tensors that are copied go in such pieces, so that progress shows.
constexpr size_t kCopyBytes = size_t{64} << 20;

// The importance of the inputs of each matrix of a group; empty vectors where all count alike.
using GroupImportance = std::vector<std::vector<float>>;

struct PackTask {
  const PlannedMatrix* matrix = nullptr;
  std::span<const float> importance;
  PanelRange panels;
};

std::vector<PackTask> tasks_of(const std::vector<PlannedMatrix>& group, const GroupImportance& importance) {
  std::vector<PackTask> tasks;
  for (size_t i = 0; i < group.size(); ++i) {
    const int64_t num_panels = group[i].source.num_panels();
    for (int64_t begin = 0; begin < num_panels; begin += kPanelsPerTask) {
      tasks.push_back({&group[i], importance[i], {begin, std::min(begin + kPanelsPerTask, num_panels)}});
    }
  }
  return tasks;
}

PackedMatrix pack_rows(const Tensor& rows, std::span<const float> importance, const WeightFormat& format) {
  PackedMatrix packed = empty_packed(format, {rows.dim(0), rows.dim(1)});
  if (format.is_integer()) {
    pack_integer_rows(rows, importance, packed);
  } else {
    pack_into(rows, packed);
  }
  return packed;
}

// Σ (exact − approximate)² and Σ exact² of at most a few thousand values. Sixteen sums side by side fit vectors; one does not.
void add_squares(std::span<const float> exact, std::span<const float> approximate, PackedWeights& weights) {
  constexpr size_t kLanes = 16;
  float errors[kLanes] = {}, squares[kLanes] = {};
  const auto add = [&](size_t i, size_t lane) {
    const float difference = exact[i] - approximate[i];
    errors[lane] += difference * difference;
    squares[lane] += exact[i] * exact[i];
  };
  const size_t whole = exact.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  }
  for (size_t i = whole; i < exact.size(); ++i) add(i, i - whole);
  for (const float error : errors) weights.squared_error += error;
  for (const float square : squares) weights.squared_weights += square;
}

PackedWeights compare(const Tensor& rows, const PackedMatrix& packed) {
  PackedWeights result;
  result.packed_bytes = packed.num_bytes();
  const Tensor rounded = unpack(packed);
  const auto columns = static_cast<size_t>(rows.dim(1));
  const std::span<const float> exact = rows.span<float>(), approximate = rounded.span<float>();
  for (size_t begin = 0; begin < exact.size(); begin += columns) {
    add_squares(exact.subspan(begin, columns), approximate.subspan(begin, columns), result);
  }
  return result;
}

// Runs the tasks of a group on all threads and rethrows the first error in the order of the tasks.
class GroupPacker {
 public:
  // All outlive the packer.
  GroupPacker(const std::vector<PlannedMatrix>& group, const GroupImportance& importance, SafetensorsWriter& writer)
      : tasks_(tasks_of(group, importance)), writer_(writer), results_(tasks_.size()), errors_(tasks_.size()) {}

  void run(ThreadPool& workers) {
    workers.parallel_for(static_cast<int64_t>(tasks_.size()), [this](int64_t index) { run_task(static_cast<size_t>(index)); });
    for (const std::exception_ptr& error : errors_) {
      if (error) std::rethrow_exception(error);
    }
  }

  void add_results(QuantizationReport& report) const {
    for (size_t i = 0; i < tasks_.size(); ++i) {
      (tasks_[i].matrix->weight_class == WeightClass::kExperts ? report.experts : report.dense) += results_[i];
    }
  }

 private:
  void run_task(size_t index) {
    if (failed_) return;
    try {
      results_[index] = pack(tasks_[index]);
    } catch (...) {
      errors_[index] = std::current_exception();
      failed_ = true;
    }
  }

  PackedWeights pack(const PackTask& task) {
    const MatrixSource& source = task.matrix->source;
    const Tensor rows = read_panels(source, task.panels);
    const PackedMatrix packed = pack_rows(rows, task.importance, source.format);
    writer_.write(source.name + ".codes", packed.codes, task.panels.begin);
    if (packed.scales.defined()) writer_.write(source.name + ".scales", packed.scales, task.panels.begin);
    if (packed.zeros.defined()) writer_.write(source.name + ".zeros", packed.zeros, task.panels.begin);
    return compare(rows, packed);
  }

  std::vector<PackTask> tasks_;
  SafetensorsWriter& writer_;
  std::vector<PackedWeights> results_;
  std::vector<std::exception_ptr> errors_;
  std::atomic<bool> failed_{false};
};

size_t bytes_of(const std::vector<PlannedMatrix>& group) {
  size_t bytes = 0;
  for (const PlannedMatrix& matrix : group) {
    for (const WeightView& part : matrix.source.parts) {
      bytes += static_cast<size_t>(part.num_rows * part.num_columns()) * size_of(part.tensor.dtype());
    }
  }
  return bytes;
}

bool is_weight_file(const fs::path& path) {
  constexpr std::string_view kEndings[] = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"};
  return path.filename() == "model.safetensors.index.json" ||
         std::ranges::find(kEndings, path.extension().string()) != std::end(kEndings);
}

std::vector<fs::path> small_files(const fs::path& model) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(model)) {
    const bool is_copied = entry.is_regular_file() && !is_weight_file(entry.path()) && entry.path().filename() != "config.json";
    if (is_copied) files.push_back(entry.path());
  }
  return files;
}

void copy_small_files(const fs::path& model, const fs::path& out) {
  for (const fs::path& file : small_files(model)) {
    std::error_code error;
    fs::copy_file(file, out / file.filename(), error);
    if (error) throw Error(file.string() + ": cannot be copied to " + out.string() + " (" + error.message() + ")");
  }
}

void write_config(const fs::path& model, const fs::path& out, const QuantizedFormats& formats) {
  nlohmann::json config = read_json_file(model / "config.json");
  config[kQuantizationKey] = to_json(formats);
  const fs::path path = out / "config.json";
  std::ofstream file(path);
  file << config.dump(2) << "\n" << std::flush;
  if (!file) throw Error(path.string() + ": cannot be written; free space there or write elsewhere");
}

// One run, in the order of its public functions.
class CheckpointQuantizer {
 public:
  CheckpointQuantizer(const QuantizationRequest& request, ThreadPool& workers, const QuantizationProgress& progress)
      : request_(request),
        config_(load_original(request.model)),
        checkpoint_(request.model),
        formats_{config_.fingerprint, request.experts, {}, request.dense, {}},
        plan_(plan_quantization(checkpoint_, config_, formats_)),
        tensors_(tensors_of(plan_, checkpoint_)),
        workers_(workers),
        progress_(progress) {
    for (const std::string& name : checkpoint_.names()) report_.bytes_before += checkpoint_.get(name).num_bytes();
    for (const TensorPlan& tensor : tensors_) report_.bytes_after += tensor.num_bytes();
    total_bytes_ = report_.bytes_before;
    // A tied head is read a second time.
    if (formats_.dense && config_.tie_word_embeddings) total_bytes_ += bytes_of(plan_.groups.back());
  }

  QuantizationReport run() {
    OutputDirectory out(request_.out);
    out.require_space(report_.bytes_after + bytes_beside_tensors());
    if (request_.calibrate) {
      calibration_ = request_.calibrate();
      formats_.calibration = calibration_->record;
    }
    copy_small_files(request_.model, out.path());
    write_config(request_.model, out.path(), formats_);
    SafetensorsWriter writer(out.path(), tensors_);
    for (const std::string& name : plan_.copies) copy_tensor(name, writer);
    for (const auto& group : plan_.groups) pack_group(group, writer);
    writer.finish();
    out.commit();
    return report_;
  }

 private:
  static ModelConfig load_original(const fs::path& model) {
    ModelConfig config = load_model_config(model);
    if (!config.quantization) return config;
    throw InvalidFile(model.string() + ": is quantised already (experts " + name_of(config.quantization->experts) +
                      "); quantise its original, whose fingerprint is " + config.quantization->source_fingerprint);
  }

  // Headers, the index and the small files, generously.
  size_t bytes_beside_tensors() const {
    constexpr size_t kHeaderBytesPerTensor = 512;
    size_t bytes = tensors_.size() * kHeaderBytesPerTensor;
    for (const fs::path& file : small_files(request_.model)) bytes += fs::file_size(file);
    return bytes;
  }

  void copy_tensor(const std::string& name, SafetensorsWriter& writer) {
    const Tensor tensor = checkpoint_.get(name);
    const int64_t num_rows = tensor.shape().rank() == 0 ? 1 : tensor.dim(0);
    const size_t row_bytes = num_rows == 0 ? 1 : std::max<size_t>(tensor.num_bytes() / static_cast<size_t>(num_rows), 1);
    const auto rows_at_once = static_cast<int64_t>(std::max<size_t>(kCopyBytes / row_bytes, 1));
    for (int64_t begin = 0; begin < num_rows; begin += rows_at_once) {
      const Tensor rows =
          tensor.shape().rank() == 0 ? tensor : tensor.slice(begin, std::min(begin + rows_at_once, num_rows));
      writer.write(name, rows, begin);
      checkpoint_.release_pages(rows);
      advance(rows.num_bytes());
    }
  }

  GroupImportance importance_of(const std::vector<PlannedMatrix>& group) const {
    GroupImportance importance(group.size());
    if (!calibration_) return importance;
    for (size_t i = 0; i < group.size(); ++i) importance[i] = calibration_->statistics.importance(group[i].input);
    return importance;
  }

  void pack_group(const std::vector<PlannedMatrix>& group, SafetensorsWriter& writer) {
    const GroupImportance importance = importance_of(group);
    GroupPacker packer(group, importance, writer);
    packer.run(workers_);
    packer.add_results(report_);
    for (const PlannedMatrix& matrix : group) {
      PackedWeights& total = matrix.weight_class == WeightClass::kExperts ? report_.experts : report_.dense;
      total.num_weights += matrix.source.num_weights();
      for (const WeightView& part : matrix.source.parts) checkpoint_.release_pages(part.tensor);
    }
    advance(bytes_of(group));
  }

  void advance(size_t num_bytes) {
    done_bytes_ += num_bytes;
    progress_(done_bytes_, total_bytes_);
  }

  const QuantizationRequest& request_;
  ModelConfig config_;
  Checkpoint checkpoint_;
  QuantizedFormats formats_;
  QuantizationPlan plan_;
  std::vector<TensorPlan> tensors_;
  std::optional<Calibration> calibration_;
  ThreadPool& workers_;
  const QuantizationProgress& progress_;
  QuantizationReport report_;
  size_t total_bytes_ = 0;
  size_t done_bytes_ = 0;
};

}  // namespace

double PackedWeights::bits_per_weight() const {
  return num_weights == 0 ? 0.0 : 8.0 * static_cast<double>(packed_bytes) / static_cast<double>(num_weights);
}

double PackedWeights::relative_error() const {
  return squared_weights == 0.0 ? 0.0 : std::sqrt(squared_error / squared_weights);
}

PackedWeights& PackedWeights::operator+=(const PackedWeights& other) {
  num_weights += other.num_weights;
  packed_bytes += other.packed_bytes;
  squared_error += other.squared_error;
  squared_weights += other.squared_weights;
  return *this;
}

QuantizationReport quantize_checkpoint(const QuantizationRequest& request, ThreadPool& workers,
                                       const QuantizationProgress& progress) {
  return CheckpointQuantizer(request, workers, progress).run();
}

}  // namespace skipper
