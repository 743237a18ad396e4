#include "evaluation/frontier_page.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <sstream>
#include <vector>

#include "evaluation/html_page.h"

namespace skipper {
namespace {

using html::escaped, html::number, html::significant, html::svg_label, html::svg_line, html::table_row;

constexpr double kWidth = 760.0, kHeight = 420.0;
constexpr double kLeft = 70.0, kRight = 20.0, kTop = 20.0, kBottom = 50.0;  // margins
constexpr double kPercent = 100.0;
// Distinct on white and on near black; told apart by dashes too.
constexpr std::array<const char*, 10> kColours = {"#4e79a7", "#a0765a", "#8c8c8c", "#b07aa1", "#7f7fd5", "#e0a030", "#3f9f6f",
                                                  "#2ca8b8", "#c4618c", "#e0524f"};
constexpr std::array<const char*, 3> kDashes = {"", "6 3", "2 3"};

// What is on the horizontal axis.
struct Saving {
  const char* title;
  double (PointMeasurement::*ratio)() const;
};

// The decades of KL that a chart shows.
struct Decades {
  int low = -4;
  int high = 0;
};

Decades decades_of(const FrontierResult& result) {
  double least = 1.0, most = 1e-3;
  for (const MethodCurve& curve : result.curves) {
    for (const MeasuredPoint& one : curve.points) {
      const double kl = one.held_out.mean_kl();
      if (kl <= 0.0) continue;
      least = std::min(least, kl);
      most = std::max(most, kl);
    }
  }
  // A point at rounding noise must not flatten all others.
  const int high = static_cast<int>(std::ceil(std::log10(most)));
  return {std::max(static_cast<int>(std::floor(std::log10(least))), high - 6), high};
}

class Chart {
 public:
  Chart(const FrontierResult& result, const Saving& saving)
      : result_(result), saving_(saving), decades_(decades_of(result)) {}

  std::string svg() {
    out_ << "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << kWidth << " " << kHeight
         << "\" role=\"img\" aria-label=\"KL against " << saving_.title << "\">\n";
    draw_grid();
    draw_titles();
    for (size_t i = 0; i < result_.curves.size(); ++i) draw_curve(i);
    draw_legend();
    out_ << "</svg>\n";
    return out_.str();
  }

 private:
  double x_of(double ratio) const { return kLeft + ratio * (kWidth - kLeft - kRight); }

  double y_of(double kl) const {
    const double exponent = std::max(std::log10(kl), static_cast<double>(decades_.low));
    const double share = (exponent - decades_.low) / std::max(decades_.high - decades_.low, 1);
    return kHeight - kBottom - share * (kHeight - kTop - kBottom);
  }

  void draw_grid() {
    for (int percent = 0; percent <= 100; percent += 10) {
      const double x = x_of(percent / kPercent);
      out_ << svg_line("grid", x, kTop, x, kHeight - kBottom);
      out_ << svg_label(x, kHeight - kBottom + 18, "middle", std::to_string(percent));
    }
    for (int decade = decades_.low; decade <= decades_.high; ++decade) {
      const double y = y_of(std::pow(10.0, decade));
      out_ << svg_line("grid", kLeft, y, kWidth - kRight, y);
      out_ << svg_label(kLeft - 8, y + 4, "end", significant(std::pow(10.0, decade)));
    }
    out_ << svg_line("axis", kLeft, kTop, kLeft, kHeight - kBottom);
    out_ << svg_line("axis", kLeft, kHeight - kBottom, kWidth - kRight, kHeight - kBottom);
  }

  void draw_titles() {
    out_ << svg_label((kLeft + kWidth - kRight) / 2, kHeight - 10, "middle", std::string(saving_.title) + " (%)");
    out_ << "<text transform=\"translate(16 " << number(kHeight / 2 - kBottom / 2 + kTop / 2, 1)
         << ") rotate(-90)\" text-anchor=\"middle\">KL from the unskipped model (nats per answer token)</text>\n";
  }

  void draw_curve(size_t index) {
    const MethodCurve& curve = result_.curves[index];
    std::vector<const PointMeasurement*> points;
    for (const MeasuredPoint& one : curve.points) {
      if (one.held_out.mean_kl() > 0.0) points.push_back(&one.held_out);
    }
    if (points.empty()) return;
    std::sort(points.begin(), points.end(), [this](const PointMeasurement* a, const PointMeasurement* b) {
      return (a->*saving_.ratio)() < (b->*saving_.ratio)();
    });
    const std::string colour = kColours[index % kColours.size()];
    out_ << "<polyline class=\"curve\" stroke=\"" << colour << "\" stroke-dasharray=\"" << kDashes[index % kDashes.size()]
         << "\" points=\"";
    for (const PointMeasurement* point : points) {
      out_ << number(x_of((point->*saving_.ratio)()), 1) << "," << number(y_of(point->mean_kl()), 1) << " ";
    }
    out_ << "\"><title>" << escaped(curve.method.title) << "</title></polyline>\n";
    for (const PointMeasurement* point : points) {
      out_ << "<circle cx=\"" << number(x_of((point->*saving_.ratio)()), 1) << "\" cy=\"" << number(y_of(point->mean_kl()), 1)
           << "\" r=\"3\" fill=\"" << colour << "\"/>\n";
    }
    shown_curves_.push_back(index);
  }

  // Over the curves, on paper of its own.
  void draw_legend() {
    out_ << "<rect x=\"" << kLeft + 6 << "\" y=\"" << kTop + 2 << "\" width=\"300\" height=\"" << 18 * shown_curves_.size() + 8
         << "\" class=\"paper\"/>\n";
    for (size_t row = 0; row < shown_curves_.size(); ++row) draw_legend_entry(shown_curves_[row], row);
  }

  void draw_legend_entry(size_t index, size_t row) {
    const double y = kTop + 18.0 * static_cast<double>(row + 1);
    const std::string colour = kColours[index % kColours.size()];
    out_ << "<line x1=\"" << kLeft + 14 << "\" y1=\"" << y - 4 << "\" x2=\"" << kLeft + 44 << "\" y2=\"" << y - 4
         << "\" stroke=\"" << colour << "\" stroke-width=\"2\" stroke-dasharray=\"" << kDashes[index % kDashes.size()]
         << "\"/>\n";
    out_ << svg_label(kLeft + 52, y, "start", result_.curves[index].method.title);
  }

  const FrontierResult& result_;
  const Saving saving_;
  const Decades decades_;
  std::ostringstream out_;
  std::vector<size_t> shown_curves_;
};

std::vector<std::string> cells_of(const std::string& name, const std::string& parameter, const PointMeasurement& m) {
  return {name,
          parameter,
          significant(m.mean_kl()),
          number(kPercent * m.flip_ratio(), 2),
          number(kPercent * m.skip_ratio(), 1),
          number(kPercent * m.skip_ratio_of(TokenClass::kText), 1),
          number(kPercent * m.skip_ratio_of(TokenClass::kVision), 1),
          number(kPercent * m.saved_bytes_ratio(), 1),
          number(1e3 * m.step_seconds(), 2)};
}

void add_table(std::ostringstream& out, const FrontierResult& result) {
  out << "<div class=\"scroll\"><table>\n";
  out << table_row(
      {"method", "parameter", "KL (nats)", "top-1 flips (%)", "pairs skipped (%)", "of text", "of vision", "bytes saved (%)",
       "step (ms)"},
      "th");
  for (size_t i = 0; i < result.ladder.size(); ++i) {
    const MeasuredPoint& level = result.ladder[i];
    const std::string taus = "text " + significant(level.point.tau[0]) + ", vision " + significant(level.point.tau[1]);
    out << table_row(cells_of("level " + std::to_string(i), taus, level.held_out), "td");
  }
  for (const MethodCurve& curve : result.curves) {
    for (const MeasuredPoint& one : curve.points) {
      const std::string parameter = curve.method.parameter + " " + significant(one.target);
      out << table_row(cells_of(curve.method.title, parameter, one.held_out), "td");
    }
  }
  out << "</table></div>\n";
}

bool sends_bytes(const FrontierResult& result) {
  return std::any_of(result.ladder.begin(), result.ladder.end(),
                     [](const MeasuredPoint& level) { return level.held_out.remote_bytes() > 0.0; });
}

}  // namespace

std::string to_page(const FrontierResult& result, const PageTitle& title) {
  std::ostringstream out;
  out << html::page_head("Skip frontier of " + title.model) << "<p>"
      << "Held-out part of " << escaped(title.data) << ", " << title.num_ranks
      << (title.num_ranks == 1 ? " rank" : " ranks") << ". Pairs are (token, expert) pairs of text and vision tokens; "
      << "special tokens are never skipped and not counted. Level 0 skips nothing.</p>\n<h2>KL against skipped pairs</h2>\n"
      << Chart(result, {"text and vision pairs skipped", &PointMeasurement::skip_ratio}).svg();
  if (sends_bytes(result)) {
    out << "<h2>KL against bytes between ranks</h2>\n"
        << Chart(result, {"deduplicated bytes saved", &PointMeasurement::saved_bytes_ratio}).svg();
  }
  out << "<h2>All points</h2>\n";
  add_table(out, result);
  out << html::page_end();
  return out.str();
}

}  // namespace skipper
