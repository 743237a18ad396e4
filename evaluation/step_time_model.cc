#include "evaluation/step_time_model.h"

#include <glog/logging.h>

#include <array>
#include <cmath>

namespace skipper {
namespace {

// Of the variances' product: closer to singular than this, the two columns are one.
constexpr double kLeastDeterminant = 1e-6;

double mean(std::span<const StepTimeSample> samples, double StepTimeSample::*field) {
  double sum = 0.0;
  for (const StepTimeSample& sample : samples) sum += sample.*field;
  return sum / static_cast<double>(samples.size());
}

// Sums of products of deviations from the means: of pairs (p), bytes (b) and seconds (s).
struct Moments {
  double pp = 0.0, pb = 0.0, bb = 0.0, ps = 0.0, bs = 0.0;
};

Moments moments(std::span<const StepTimeSample> samples, const StepTimeSample& means) {
  Moments m;
  for (const StepTimeSample& sample : samples) {
    const double p = sample.pairs - means.pairs, b = sample.bytes - means.bytes, s = sample.seconds - means.seconds;
    m.pp += p * p;
    m.pb += p * b;
    m.bb += b * b;
    m.ps += p * s;
    m.bs += b * s;
  }
  return m;
}

// A quotient that is 0 where the column does not vary or would count the wrong way.
double slope(double covariance, double variance) { return variance > 0.0 ? std::fmax(covariance / variance, 0.0) : 0.0; }

// The better of the two models of one column.
void fit_one_column(const Moments& m, StepTimeModel& model) {
  const double per_pair = slope(m.ps, m.pp);
  const double per_byte = slope(m.bs, m.bb);
  const bool pairs_explain_more = per_pair * m.ps >= per_byte * m.bs;
  model.seconds_per_pair = pairs_explain_more ? per_pair : 0.0;
  model.seconds_per_byte = pairs_explain_more ? 0.0 : per_byte;
}

void fit_columns(const Moments& m, StepTimeModel& model) {
  const double determinant = m.pp * m.bb - m.pb * m.pb;
  if (determinant > kLeastDeterminant * m.pp * m.bb) {
    model.seconds_per_pair = (m.ps * m.bb - m.bs * m.pb) / determinant;
    model.seconds_per_byte = (m.bs * m.pp - m.ps * m.pb) / determinant;
    if (model.seconds_per_pair >= 0.0 && model.seconds_per_byte >= 0.0) return;
  }
  fit_one_column(m, model);
}

double relative_error(std::span<const StepTimeSample> samples, const StepTimeModel& model, double mean_seconds) {
  double squares = 0.0;
  for (const StepTimeSample& sample : samples) {
    const double error = model.seconds(sample.pairs, sample.bytes) - sample.seconds;
    squares += error * error;
  }
  return mean_seconds > 0.0 ? std::sqrt(squares / static_cast<double>(samples.size())) / mean_seconds : 0.0;
}

}  // namespace

StepTimeModel fit_step_time(std::span<const StepTimeSample> samples) {
  CHECK(!samples.empty());
  const StepTimeSample means{mean(samples, &StepTimeSample::pairs), mean(samples, &StepTimeSample::bytes),
                             mean(samples, &StepTimeSample::seconds)};
  StepTimeModel model;
  fit_columns(moments(samples, means), model);
  model.base_seconds = means.seconds - model.seconds_per_pair * means.pairs - model.seconds_per_byte * means.bytes;
  model.relative_error = relative_error(samples, model, means.seconds);
  return model;
}

}  // namespace skipper
