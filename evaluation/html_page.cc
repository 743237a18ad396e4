#include "evaluation/html_page.h"

#include <array>
#include <cstdio>

namespace skipper {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --ink: #1d2125; --faint: #c9ced3; --paper: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --faint: #454b52; --paper: #16191c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60em; margin: 2em auto;
  padding: 0 1em; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
.paper { fill: var(--paper); fill-opacity: .85; } .axis { stroke: var(--ink); fill: none; }
.grid { stroke: var(--faint); } .curve { fill: none; stroke-width: 2; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .7em; border-bottom: 1px solid var(--faint); text-align: right; } th:first-child, td:first-child {
  text-align: left; }
)";

}  // namespace

namespace html {

std::string page_head(const std::string& title) {
  const std::string shown = escaped(title);
  return std::string("<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>") +
         "<meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width\"/><title>" + shown +
         "</title>\n<style>" + kStyle + "</style></head>\n<body>\n<h1>" + shown + "</h1>\n";
}

std::string page_end() { return "</body>\n</html>\n"; }

std::string table_row(const std::vector<std::string>& cells, const char* tag) {
  std::string row = "<tr>";
  for (const std::string& cell : cells) row += std::string("<") + tag + ">" + escaped(cell) + "</" + tag + ">";
  return row + "</tr>\n";
}

std::string svg_line(const char* style, double x1, double y1, double x2, double y2) {
  return std::string("<line class=\"") + style + "\" x1=\"" + number(x1, 1) + "\" y1=\"" + number(y1, 1) + "\" x2=\"" +
         number(x2, 1) + "\" y2=\"" + number(y2, 1) + "\"/>\n";
}

std::string svg_label(double x, double y, const char* anchor, const std::string& text) {
  return "<text x=\"" + number(x, 1) + "\" y=\"" + number(y, 1) + "\" text-anchor=\"" + anchor + "\">" + escaped(text) +
         "</text>\n";
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default:
        if (static_cast<unsigned char>(c) >= ' ') out += c;  // XML has no other control characters than white space
    }
  }
  return out;
}

std::string number(double value, int digits) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

std::string significant(double value) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.3g", value);
  return text.data();
}

}  // namespace html
}  // namespace skipper
