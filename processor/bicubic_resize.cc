#include "processor/bicubic_resize.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace skipper {
namespace {

constexpr int64_t kChannels = 3;
constexpr double kKernelRadius = 2.0;

// The source pixels [first, first + count) that make one output pixel, and where their weights begin.
struct Window {
  int64_t first = 0;
  int64_t count = 0;
  int64_t first_weight = 0;
};

// All windows of one axis; weights are integers of `precision` fractional bits.
struct ResampleWeights {
  std::vector<Window> windows;
  std::vector<int16_t> weights;
  int precision = 0;
};

// Keys' cubic with a = -0.5.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return ((x - 5.0) * x + 8.0) * x * a - 4.0 * a;
  return 0.0;
}

// The most fractional bits with which the largest weight still fits in 16 bits.
int weight_precision(double largest_weight) {
  constexpr int kMaxPrecision = 22;
  for (int precision = 0; precision < kMaxPrecision; ++precision) {
    if (std::floor(0.5 + std::ldexp(largest_weight, precision + 1)) >= 1 << 15) return precision;
  }
  return kMaxPrecision;
}

// Appends the normalised weights of output pixel `at` to `weights`.
Window add_window(int64_t at, int64_t source_size, double scale, std::vector<double>& weights) {
  const double stretch = std::max(scale, 1.0);
  const double radius = kKernelRadius * stretch;
  const double center = scale * (static_cast<double>(at) + 0.5);
  const auto first = std::max<int64_t>(static_cast<int64_t>(center - radius + 0.5), 0);
  const int64_t end = std::min(static_cast<int64_t>(center + radius + 0.5), source_size);

  const Window window = {first, end - first, static_cast<int64_t>(weights.size())};
  double sum = 0.0;
  for (int64_t i = first; i < end; ++i) {
    weights.push_back(cubic((static_cast<double>(i) - center + 0.5) * (1.0 / stretch)));
    sum += weights.back();
  }
  for (auto weight = weights.begin() + window.first_weight; weight != weights.end(); ++weight) *weight /= sum;
  return window;
}

ResampleWeights resample_weights(int64_t source_size, int64_t size) {
  const double scale = static_cast<double>(source_size) / static_cast<double>(size);
  ResampleWeights result;
  std::vector<double> exact;
  for (int64_t i = 0; i < size; ++i) result.windows.push_back(add_window(i, source_size, scale, exact));

  result.precision = weight_precision(*std::max_element(exact.begin(), exact.end()));
  for (const double weight : exact) {
    result.weights.push_back(static_cast<int16_t>(std::ldexp(weight, result.precision) + (weight < 0 ? -0.5 : 0.5)));
  }
  return result;
}

uint8_t rounded(int32_t sum, int precision) { return static_cast<uint8_t>(std::clamp(sum >> precision, 0, 255)); }

// One output row from a row of any width.
void resize_row(const uint8_t* source, const ResampleWeights& columns, uint8_t* out) {
  const int32_t half = 1 << (columns.precision - 1);
  for (const Window& window : columns.windows) {
    const int16_t* weights = columns.weights.data() + window.first_weight;
    const uint8_t* pixel = source + window.first * kChannels;
    int32_t red = half, green = half, blue = half;
    for (int64_t i = 0; i < window.count; ++i, pixel += kChannels) {
      red += pixel[0] * weights[i];
      green += pixel[1] * weights[i];
      blue += pixel[2] * weights[i];
    }
    *out++ = rounded(red, columns.precision);
    *out++ = rounded(green, columns.precision);
    *out++ = rounded(blue, columns.precision);
  }
}

RgbImage resize_width(const RgbImage& image, int64_t width) {
  RgbImage out({image.size.height, width});
  const ResampleWeights columns = resample_weights(image.size.width, width);
  for (int64_t y = 0; y < image.size.height; ++y) resize_row(image.row(y), columns, out.row(y));
  return out;
}

RgbImage resize_height(const RgbImage& image, int64_t height) {
  RgbImage out({height, image.size.width});
  const ResampleWeights rows = resample_weights(image.size.height, height);
  std::vector<int32_t> sums(static_cast<size_t>(image.size.width * kChannels));
  for (int64_t y = 0; y < height; ++y) {
    const Window& window = rows.windows[static_cast<size_t>(y)];
    std::fill(sums.begin(), sums.end(), 1 << (rows.precision - 1));
    for (int64_t i = 0; i < window.count; ++i) {
      const int32_t weight = rows.weights[static_cast<size_t>(window.first_weight + i)];
      const uint8_t* source = image.row(window.first + i);
      for (size_t x = 0; x < sums.size(); ++x) sums[x] += source[x] * weight;
    }
    std::transform(sums.begin(), sums.end(), out.row(y), [&](int32_t sum) { return rounded(sum, rows.precision); });
  }
  return out;
}

}  // namespace

RgbImage resize_bicubic(RgbImage image, ImageSize size) {
  if (size.width != image.size.width) image = resize_width(image, size.width);
  if (size.height != image.size.height) image = resize_height(image, size.height);
  return image;
}

}  // namespace skipper
