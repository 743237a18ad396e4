#include "evaluation/expert_rater.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace skipper {
namespace {

constexpr int64_t kRandomRows = 64;
constexpr int64_t kRatedRowsPerPass = 4096;

double length(const float* row, int64_t size) {
  double sum = 0.0;
  for (int64_t i = 0; i < size; ++i) sum += double{row[i]} * double{row[i]};
  return std::sqrt(sum);
}

// 1 becomes the mean. All zero: all are alike.
std::vector<float> by_their_mean(const std::vector<double>& values) {
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  std::vector<float> shares;
  for (const double value : values) shares.push_back(mean > 0.0 ? static_cast<float>(value / mean) : 1.0f);
  return shares;
}

Tensor random_rows(const Tensor& norm) {
  const int64_t width = norm.num_elements();
  Tensor rows = Tensor::empty({kRandomRows, width}, DType::kF32);
  std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < rows.num_elements(); ++i) rows.data<float>()[i] = normal(generator) * norm.data<float>()[i % width];
  return rows;
}

// Row e: what the norm makes of the direction that the router prefers expert e for.
Tensor router_rows(const RatedLayer& layer) {
  const int64_t num_experts = layer.router.dim(0), width = layer.router.dim(1);
  std::vector<double> mean(static_cast<size_t>(width));
  for (int64_t i = 0; i < layer.router.num_elements(); ++i) {
    mean[static_cast<size_t>(i % width)] += double{layer.router.data<float>()[i]} / static_cast<double>(num_experts);
  }
  Tensor rows = Tensor::empty({num_experts, width}, DType::kF32);
  const float* norm = layer.norm.data<float>();
  for (int64_t e = 0; e < num_experts; ++e) {
    float* row = rows.row<float>(e);
    for (int64_t i = 0; i < width; ++i) {
      row[i] = norm[i] * static_cast<float>(double{layer.router.row<float>(e)[i]} - mean[static_cast<size_t>(i)]);
    }
    const double size = length(row, width);
    const double scale = size > 0.0 ? std::sqrt(static_cast<double>(width)) / size : 0.0;
    for (int64_t i = 0; i < width; ++i) row[i] = norm[i] * static_cast<float>(double{row[i]} * scale);
  }
  return rows;
}

// [H][N], every channel less its mean over the rows.
std::vector<float> centred_channels(const Tensor& rows) {
  const int64_t num_rows = rows.dim(0), width = rows.dim(1);
  std::vector<float> channels(static_cast<size_t>(rows.num_elements()));
  for (int64_t h = 0; h < width; ++h) {
    double mean = 0.0;
    for (int64_t n = 0; n < num_rows; ++n) mean += double{rows.row<float>(n)[h]} / static_cast<double>(num_rows);
    for (int64_t n = 0; n < num_rows; ++n) {
      channels[static_cast<size_t>(h * num_rows + n)] = static_cast<float>(double{rows.row<float>(n)[h]} - mean);
    }
  }
  return channels;
}

// What CKA compares: the products of all pairs of answers, [N][N], with a Frobenius norm of 1. All zero for an expert that says
// the same to everything.
std::vector<float> gram_matrix(const Tensor& answers) {
  const int64_t num_rows = answers.dim(0), width = answers.dim(1);
  const std::vector<float> channels = centred_channels(answers);
  std::vector<float> gram(static_cast<size_t>(num_rows * num_rows));
  for (int64_t i = 0; i < num_rows; ++i) {
    float* row = gram.data() + i * num_rows;
    for (int64_t h = 0; h < width; ++h) {
      const float* channel = channels.data() + h * num_rows;
      for (int64_t j = 0; j < num_rows; ++j) row[j] += channel[i] * channel[j];
    }
  }
  const double size = length(gram.data(), num_rows * num_rows);
  for (float& value : gram) value = size > 0.0 ? static_cast<float>(double{value} / size) : 0.0f;
  return gram;
}

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

// [E · E] of CKA → by the mean of different experts.
std::vector<float> by_mean_of_others(const std::vector<double>& cka, size_t num_experts) {
  double sum = 0.0;
  for (size_t i = 0; i < cka.size(); ++i) sum += i % (num_experts + 1) == 0 ? 0.0 : cka[i];
  const double mean = num_experts > 1 ? sum / static_cast<double>(num_experts * (num_experts - 1)) : 0.0;
  std::vector<float> relative;
  for (const double value : cka) relative.push_back(mean > 0.0 ? static_cast<float>(value / mean) : 1.0f);
  return relative;
}

}  // namespace

ExpertRater::ExpertRater(const ExpertStore& store, Stream& stream)
    : store_(store), experts_(store), scratch_(store, kRatedRowsPerPass), stream_(stream) {}

LayerRatings ExpertRater::rate(const RatedLayer& layer, const Tensor& rows) const {
  CHECK_EQ(layer.router.dim(0), store_.num_local_experts(layer.moe_layer)) << "a rank with all experts";
  return {capacities(layer), responses(layer), similarities(layer.moe_layer, rows)};
}

// Of one expert to all rows.
Tensor ExpertRater::answers(int moe_layer, int64_t slot, const Tensor& rows) const {
  const int64_t num_rows = rows.dim(0), num_experts = store_.num_local_experts(moe_layer);
  Tensor index = Tensor::empty({num_rows}, DType::kI32), offsets = Tensor::zeros({num_experts + 1}, DType::kI32);
  std::iota(index.span<int32_t>().begin(), index.span<int32_t>().end(), 0);
  std::fill(offsets.data<int32_t>() + slot + 1, offsets.data<int32_t>() + num_experts + 1, static_cast<int32_t>(num_rows));
  Tensor out = Tensor::empty({num_rows, store_.hidden_size()}, DType::kF32);
  experts_.forward(moe_layer, {rows, index, offsets}, scratch_, out, stream_);
  return out;
}

std::vector<float> ExpertRater::capacities(const RatedLayer& layer) const {
  const Tensor rows = random_rows(layer.norm);
  std::vector<double> sums;
  for (int64_t slot = 0; slot < layer.router.dim(0); ++slot) {
    const Tensor said = answers(layer.moe_layer, slot, rows);
    sums.push_back(0.0);
    for (int64_t row = 0; row < kRandomRows; ++row) sums.back() += length(said.row<float>(row), store_.hidden_size());
  }
  return by_their_mean(sums);
}

std::vector<float> ExpertRater::responses(const RatedLayer& layer) const {
  const Tensor rows = router_rows(layer);
  std::vector<double> lengths;
  for (int64_t slot = 0; slot < layer.router.dim(0); ++slot) {
    const Tensor said = answers(layer.moe_layer, slot, rows.slice(slot, slot + 1));
    lengths.push_back(length(said.data<float>(), store_.hidden_size()));
  }
  return by_their_mean(lengths);
}

std::vector<float> ExpertRater::similarities(int moe_layer, const Tensor& rows) const {
  const auto num_experts = static_cast<size_t>(store_.num_local_experts(moe_layer));
  std::vector<std::vector<float>> grams;
  for (size_t e = 0; e < num_experts; ++e) grams.push_back(gram_matrix(answers(moe_layer, static_cast<int64_t>(e), rows)));
  std::vector<double> cka(num_experts * num_experts);
  for (size_t e = 0; e < num_experts; ++e) {
    for (size_t f = e; f < num_experts; ++f) {
      cka[e * num_experts + f] = cka[f * num_experts + e] = std::max(dot(grams[e], grams[f]), 0.0);
    }
  }
  return by_mean_of_others(cka, num_experts);
}

}  // namespace skipper
