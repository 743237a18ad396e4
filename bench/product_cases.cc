#include "bench/product_cases.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/expert_products.h"
#include "kernels/linear.h"
#include "machine/random_matrix.h"

namespace skipper {
namespace {

// Weights that runs take turns with: far more than a last-level cache.
constexpr size_t kRotatedBytes = size_t{256} << 20;
constexpr int64_t kSampleStep = 37;  // every so many outputs are checked

int64_t num_copies(size_t bytes) { return static_cast<int64_t>(kRotatedBytes / std::max<size_t>(1, bytes)) + 1; }

double dot(const float* x, const float* w, int64_t size) {
  double sum = 0.0;
  for (int64_t k = 0; k < size; ++k) sum += double{x[k]} * double{w[k]};
  return sum;
}

// Root of (sum of squared differences ÷ sum of squares).
class RelativeError {
 public:
  void add(double actual, double expected) {
    difference_ += (actual - expected) * (actual - expected);
    size_ += expected * expected;
  }
  double value() const { return std::sqrt(difference_ / size_); }

 private:
  double difference_ = 0.0;
  double size_ = 0.0;
};

class DenseCase : public ProductCase {
 public:
  DenseCase(const WeightFormat& format, const DenseShape& shape)
      : shape_(shape),
        x_(random_matrix({shape.num_rows, shape.num_inputs}, DType::kF32, 1)),
        y_(Tensor::empty({shape.num_rows, shape.num_outputs}, DType::kF32)) {
    weights_.push_back({pack(random_matrix({shape.num_outputs, shape.num_inputs}, DType::kBF16, 2), format), {}});
    const int64_t copies = num_copies(weights_[0].weight.num_bytes());
    while (static_cast<int64_t>(weights_.size()) < copies) weights_.push_back({copy_of(weights_[0].weight), {}});
  }

  void run(Stream& stream) override { linear(x_, weights_[next_++ % weights_.size()], y_, stream); }

  ProductWork next_work() const override {
    return {2.0 * static_cast<double>(shape_.num_rows * shape_.num_outputs * shape_.num_inputs),
            static_cast<double>(weights_[0].weight.num_bytes())};
  }

  double measure_error(Stream& stream) override {
    run(stream);
    const Tensor w = unpack(weights_[0].weight);
    RelativeError error;
    for (int64_t i = 0; i < y_.num_elements(); i += kSampleStep) {
      const int64_t row = i / shape_.num_outputs, output = i % shape_.num_outputs;
      error.add(double{y_.data<float>()[i]}, dot(x_.row<float>(row), w.row<float>(output), shape_.num_inputs));
    }
    return error.value();
  }

 private:
  DenseShape shape_;
  Tensor x_;
  Tensor y_;
  std::vector<PackedLinear> weights_;
  size_t next_ = 0;
};

// Rows sorted by expert.
struct Routing {
  Tensor row_index;
  Tensor row_offsets;
};

Routing random_routing(const ExpertsShape& shape, std::mt19937& generator) {
  std::vector<std::vector<int32_t>> tokens_of(static_cast<size_t>(shape.num_experts));
  std::vector<size_t> experts(tokens_of.size());
  std::iota(experts.begin(), experts.end(), size_t{0});
  for (int64_t token = 0; token < shape.num_tokens; ++token) {
    std::shuffle(experts.begin(), experts.end(), generator);
    for (int64_t k = 0; k < shape.top_k; ++k) tokens_of[experts[static_cast<size_t>(k)]].push_back(static_cast<int32_t>(token));
  }
  Routing routing{Tensor::empty({shape.num_tokens * shape.top_k}, DType::kI32),
                  Tensor::zeros({shape.num_experts + 1}, DType::kI32)};
  int32_t* row = routing.row_index.data<int32_t>();
  for (size_t e = 0; e < tokens_of.size(); ++e) {
    row = std::copy(tokens_of[e].begin(), tokens_of[e].end(), row);
    routing.row_offsets.data<int32_t>()[e + 1] = static_cast<int32_t>(row - routing.row_index.data<int32_t>());
  }
  return routing;
}

class ExpertsCase : public ProductCase {
 public:
  ExpertsCase(const WeightFormat& format, const ExpertsShape& shape)
      : shape_(shape),
        gate_(random_matrix({shape.intermediate_size, shape.hidden_size}, DType::kBF16, 2)),
        up_(random_matrix({shape.intermediate_size, shape.hidden_size}, DType::kBF16, 3)),
        down_(random_matrix({shape.hidden_size, shape.intermediate_size}, DType::kBF16, 4)),
        tokens_(random_matrix({shape.num_tokens, shape.hidden_size}, DType::kF32, 1)),
        activated_(Tensor::empty({shape.num_tokens * shape.top_k, shape.intermediate_size}, DType::kF32)),
        y_(Tensor::empty({shape.num_tokens * shape.top_k, shape.hidden_size}, DType::kF32)) {
    const int64_t padded = (shape.intermediate_size + kPanelRows - 1) / kPanelRows * kPanelRows;
    PackedMatrix gate_up = empty_packed(format, {.num_rows = 2 * padded, .num_columns = shape.hidden_size});
    pack_gate_up(gate_, up_, gate_up);
    const PackedMatrix down = pack(down_, format);
    const int64_t copies = num_copies(static_cast<size_t>(shape.num_experts) * (gate_up.num_bytes() + down.num_bytes()));
    for (int64_t i = 0; i < copies * shape.num_experts; ++i) {
      gate_ups_.push_back(copy_of(gate_up));
      downs_.push_back(copy_of(down));
    }
    routing_ = random_routing(shape_, generator_);
  }

  void run(Stream& stream) override {
    run_routed(routing_, stream);
    ++next_;
    routing_ = random_routing(shape_, generator_);
  }

  ProductWork next_work() const override {
    ProductWork work;
    const double weights = 3.0 * static_cast<double>(shape_.hidden_size * shape_.intermediate_size);
    work.operations = 2.0 * weights * static_cast<double>(shape_.num_tokens * shape_.top_k);
    const int32_t* offsets = routing_.row_offsets.data<int32_t>();
    for (int64_t e = 0; e < shape_.num_experts; ++e) {
      if (offsets[e] < offsets[e + 1]) work.weight_bytes += static_cast<double>(gate_ups_[0].num_bytes() + downs_[0].num_bytes());
    }
    return work;
  }

  // All experts have the same weights, so any row of a token will do.
  double measure_error(Stream& stream) override {
    run_routed(routing_, stream);
    const Tensor gate = unpack(gate_ups_[0].panels(0, 1)), up = unpack(gate_ups_[0].panels(1, 2)), down = unpack(downs_[0]);
    RelativeError activated, output;
    for (int64_t row = 0; row < activated_.dim(0); row += kSampleStep) {
      const float* x = tokens_.row<float>(routing_.row_index.data<int32_t>()[row]);
      for (int64_t i = 0; i < std::min(kPanelRows, shape_.intermediate_size); ++i) {
        const double a = dot(x, gate.row<float>(i), shape_.hidden_size);
        const double expected = a / (1.0 + std::exp(-a)) * dot(x, up.row<float>(i), shape_.hidden_size);
        activated.add(double{activated_.row<float>(row)[i]}, expected);
      }
      for (int64_t h = 0; h < shape_.hidden_size; h += kSampleStep) {
        output.add(double{y_.row<float>(row)[h]}, dot(activated_.row<float>(row), down.row<float>(h), shape_.intermediate_size));
      }
    }
    return std::max(activated.value(), output.value());
  }

 private:
  void run_routed(const Routing& routing, Stream& stream) {
    const size_t first = next_ * static_cast<size_t>(shape_.num_experts) % gate_ups_.size();
    const auto layer = [&](const std::vector<PackedMatrix>& experts) {
      return std::span(experts).subspan(first, static_cast<size_t>(shape_.num_experts));
    };
    expert_gate_up({tokens_, routing.row_index, routing.row_offsets}, layer(gate_ups_), activated_, stream);
    expert_down({activated_, routing.row_offsets}, layer(downs_), y_, stream);
  }

  ExpertsShape shape_;
  Tensor gate_, up_, down_;
  Tensor tokens_;
  Tensor activated_;
  Tensor y_;
  std::vector<PackedMatrix> gate_ups_;  // layer after layer
  std::vector<PackedMatrix> downs_;
  std::mt19937 generator_{7};
  Routing routing_;
  size_t next_ = 0;
};

}  // namespace

std::unique_ptr<ProductCase> make_dense_case(const WeightFormat& format, const DenseShape& shape) {
  return std::make_unique<DenseCase>(format, shape);
}

std::unique_ptr<ProductCase> make_experts_case(const WeightFormat& format, const ExpertsShape& shape) {
  return std::make_unique<ExpertsCase>(format, shape);
}

}  // namespace skipper
