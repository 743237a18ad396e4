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

// Text between tags or in an attribute.
std::string escaped(const std::string& text);

// So many digits after the point, or three that count.
std::string number(double value, int digits);
std::string significant(double value);

}  // namespace skipper::html
