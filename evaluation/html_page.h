// What pages of results share: well-formed XML without outside resources, readable on light and dark.
#pragma once

#include <string>
#include <vector>

namespace skipper::html {

// Up to and with the heading; page_end() closes it.
std::string page_head(const std::string& title);
std::string page_end();

// A row of a table whose cells have the tag "td" or "th".
std::string table_row(const std::vector<std::string>& cells, const char* tag);

// Of a picture, in its units; the class names the style. The anchor is "start", "middle" or "end".
std::string svg_line(const char* style, double x1, double y1, double x2, double y2);
std::string svg_label(double x, double y, const char* anchor, const std::string& text);

// Text between tags or in an attribute.
std::string escaped(const std::string& text);

// So many digits after the point, or three that count.
std::string number(double value, int digits);
std::string significant(double value);

}  // namespace skipper::html
