#include <algorithm>
#include <cmath>
#include <functional>
#include <sstream>

#include "evaluation/html_page.h"
#include "evaluation/precision_frontier.h"

namespace skipper {
namespace {

using html::escaped, html::number, html::significant, html::svg_label, html::svg_line, html::table_row;

constexpr double kWidth = 760.0, kHeight = 420.0;
constexpr double kLeft = 70.0, kRight = 20.0, kTop = 20.0, kBottom = 50.0;  // margins
constexpr const char* kPlanColour = "#e0524f";
constexpr const char* kUniformColour = "#4e79a7";
constexpr int kNumTicks = 8;
constexpr int kMostDecades = 6;

// One kind of points: what is drawn of each, and how.
struct Series {
  const char* title;
  PrecisionSource source;
  const char* colour;
  const char* dash;
  std::function<double(const PrecisionPoint&)> x, y;
};

// What is on the horizontal axis.
struct Axis {
  std::string title;
  double low = 0.0;
  double high = 1.0;
};

class PrecisionChart {
 public:
  PrecisionChart(const std::vector<PrecisionPoint>& points, std::vector<Series> series, const std::string& axis_title)
      : points_(points), series_(std::move(series)), is_dominated_(dominated(points)) {
    axis_.title = axis_title;
    fit_axes();
  }

  std::string svg() {
    out_ << "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << kWidth << " " << kHeight
         << "\" role=\"img\" aria-label=\"KL against " << escaped(axis_.title) << "\">\n";
    draw_grid();
    for (const Series& series : series_) draw_series(series);
    for (size_t row = 0; row < series_.size(); ++row) draw_legend_entry(series_[row], row);
    out_ << "</svg>\n";
    return out_.str();
  }

 private:
  void fit_axes() {
    double least = 1.0, most = 1e-6;
    axis_.low = 1e300, axis_.high = -1e300;
    for (const Series& series : series_) {
      for (const PrecisionPoint& point : points_) {
        if (point.source != series.source) continue;
        axis_.low = std::min(axis_.low, series.x(point));
        axis_.high = std::max(axis_.high, series.x(point));
        if (series.y(point) <= 0.0) continue;
        least = std::min(least, series.y(point));
        most = std::max(most, series.y(point));
      }
    }
    if (axis_.low > axis_.high) axis_.low = axis_.high = 0.0;
    const double margin = std::max(0.05 * (axis_.high - axis_.low), 1e-9);
    axis_.low = std::max(0.0, axis_.low - margin);
    axis_.high += margin;
    high_decade_ = static_cast<int>(std::ceil(std::log10(most)));
    low_decade_ = std::max(static_cast<int>(std::floor(std::log10(least))), high_decade_ - kMostDecades);
  }

  double x_of(double value) const { return kLeft + (value - axis_.low) / (axis_.high - axis_.low) * (kWidth - kLeft - kRight); }

  // What loses nothing lies on the axis.
  double y_of(double kl) const {
    const double exponent = kl > 0.0 ? std::max(std::log10(kl), static_cast<double>(low_decade_)) : low_decade_;
    return kHeight - kBottom - (exponent - low_decade_) / std::max(high_decade_ - low_decade_, 1) * (kHeight - kTop - kBottom);
  }

  void draw_grid() {
    for (int tick = 0; tick <= kNumTicks; ++tick) {
      const double value = axis_.low + (axis_.high - axis_.low) * tick / kNumTicks;
      out_ << svg_line("grid", x_of(value), kTop, x_of(value), kHeight - kBottom);
      out_ << svg_label(x_of(value), kHeight - kBottom + 18, "middle", value < 100.0 ? significant(value) : number(value, 0));
    }
    for (int decade = low_decade_; decade <= high_decade_; ++decade) {
      const double y = y_of(std::pow(10.0, decade));
      out_ << svg_line("grid", kLeft, y, kWidth - kRight, y);
      out_ << svg_label(kLeft - 8, y + 4, "end", significant(std::pow(10.0, decade)));
    }
    out_ << svg_line("axis", kLeft, kTop, kLeft, kHeight - kBottom);
    out_ << svg_line("axis", kLeft, kHeight - kBottom, kWidth - kRight, kHeight - kBottom);
    out_ << svg_label((kLeft + kWidth - kRight) / 2, kHeight - 10, "middle", axis_.title);
    out_ << "<text transform=\"translate(16 " << number(kHeight / 2, 1)
         << ") rotate(-90)\" text-anchor=\"middle\">KL from unrounded experts (nats per scored token)</text>\n";
  }

  // Dominated points are hollow.
  void draw_series(const Series& series) {
    std::vector<size_t> shown;
    for (size_t i = 0; i < points_.size(); ++i) {
      if (points_[i].source == series.source) shown.push_back(i);
    }
    std::ranges::sort(shown, {}, [&](size_t i) { return series.x(points_[i]); });
    if (series.source == PrecisionSource::kPlan) draw_polyline(series, shown);
    for (const size_t i : shown) {
      const PrecisionPoint& point = points_[i];
      out_ << "<circle cx=\"" << number(x_of(series.x(point)), 1) << "\" cy=\"" << number(y_of(series.y(point)), 1)
           << "\" r=\"4\" stroke=\"" << series.colour << "\" fill=\"" << (is_dominated_[i] ? "none" : series.colour)
           << "\"><title>" << escaped(point.name) << "</title></circle>\n";
    }
  }

  void draw_polyline(const Series& series, const std::vector<size_t>& shown) {
    out_ << "<polyline class=\"curve\" stroke=\"" << series.colour << "\" stroke-dasharray=\"" << series.dash << "\" points=\"";
    for (const size_t i : shown) {
      out_ << number(x_of(series.x(points_[i])), 1) << "," << number(y_of(series.y(points_[i])), 1) << " ";
    }
    out_ << "\"><title>" << escaped(series.title) << "</title></polyline>\n";
  }

  // Where low losses leave the paper free.
  void draw_legend_entry(const Series& series, size_t row) {
    const double x = kWidth - kRight - 230.0, y = kTop + 18.0 * static_cast<double>(row + 1);
    out_ << "<line x1=\"" << x << "\" y1=\"" << y - 4 << "\" x2=\"" << x + 30 << "\" y2=\"" << y - 4 << "\" stroke=\""
         << series.colour << "\" stroke-width=\"2\" stroke-dasharray=\"" << series.dash << "\"/>\n";
    out_ << svg_label(x + 38, y, "start", series.title);
  }

  const std::vector<PrecisionPoint>& points_;
  std::vector<Series> series_;
  std::vector<bool> is_dominated_;
  Axis axis_;
  int low_decade_ = -4, high_decade_ = 0;
  std::ostringstream out_;
};

double megabytes(const PrecisionPoint& point) { return static_cast<double>(point.expert_bytes) / 1e6; }
double measured_kl(const PrecisionPoint& point) { return point.measured.kl; }
double predicted_kl(const PrecisionPoint& point) { return point.predicted.loss; }
double speed(const PrecisionPoint& point) { return point.measured.tokens_per_second; }
double predicted_speed(const PrecisionPoint& point) { return point.predicted.tokens_per_second; }

// Relative losses are no KL and stay out of the picture.
std::vector<Series> series_over(const std::function<double(const PrecisionPoint&)>& x,
                                const std::function<double(const PrecisionPoint&)>& predicted_x, bool has_measured_profile) {
  std::vector<Series> series = {{"plans, measured", PrecisionSource::kPlan, kPlanColour, "", x, measured_kl},
                                {"one format, measured", PrecisionSource::kUniform, kUniformColour, "2 3", x, measured_kl}};
  if (has_measured_profile) {
    series.push_back({"plans, predicted", PrecisionSource::kPlan, "#e0a030", "6 3", predicted_x, predicted_kl});
  }
  return series;
}

std::vector<std::string> cells_of(const PrecisionPoint& point, bool is_dominated) {
  const PrecisionMeasurement& measured = point.measured;
  return {point.name + (is_dominated ? " (dominated)" : ""),
          number(megabytes(point), 2),
          number(point.expert_bits, 3),
          significant(point.predicted.loss),
          significant(measured.kl),
          measured.perplexity > 0.0 ? number(measured.perplexity, 3) : "n/a",
          std::to_string(measured.right) + " of " + std::to_string(measured.questions),
          number(point.predicted.tokens_per_second, 1),
          number(measured.tokens_per_second, 1),
          measured.joules_per_token ? significant(*measured.joules_per_token) : "n/a"};
}

}  // namespace

std::string to_page(const std::vector<PrecisionPoint>& points, const PrecisionOrigin& origin) {
  const bool is_measured = origin.profile == "measured";
  std::ostringstream out;
  out << html::page_head("Precision frontier of " + origin.model) << "<p>Held-out part of " << escaped(origin.data)
      << ". Plans for rising memory and, beside them, all experts in one format. Hollow points are dominated: another takes no "
      << "more bytes, loses no more and is predicted no slower. Predicted speed is by "
      << escaped(origin.rates.empty() ? "assumed rates of memory" : "rates of " + origin.rates) << ".";
  if (!is_measured) out << " Predicted losses are relative units, from the model's shape alone.";
  out << "</p>\n<h2>KL against the bytes of experts</h2>\n"
      << PrecisionChart(points, series_over(megabytes, megabytes, is_measured), "bytes of all experts (MB)").svg()
      << "<h2>KL against speed</h2>\n"
      << PrecisionChart(points, series_over(speed, predicted_speed, is_measured), "tokens a second of one stream").svg()
      << "<h2>All points</h2>\n<div class=\"scroll\"><table>\n"
      << table_row({"plan for, or format", "experts (MB)", "bits", "predicted loss", "KL (nats)", "perplexity", "answers right",
                    "predicted tokens/s", "tokens/s", "J/token"}, "th");
  const std::vector<bool> is_dominated = dominated(points);
  for (size_t i = 0; i < points.size(); ++i) out << table_row(cells_of(points[i], is_dominated[i]), "td");
  out << "</table></div>\n" << html::page_end();
  return out.str();
}

}  // namespace skipper
