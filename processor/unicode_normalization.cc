#include "processor/unicode_normalization.h"

#include <glog/logging.h>
#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "processor/utf8.h"

namespace skipper {
namespace {

// STABLE: as the standard's versions promise never to change; without it utf8proc composes what NFC excludes.
constexpr auto kDecompose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
constexpr auto kCompose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

// Every character below U+0300 is its own composed form and combines with nothing below U+0300; in UTF-8 such
// characters are exactly those whose first byte is below CC.
bool is_trivially_composed(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0xCC; });
}

std::vector<utf8proc_int32_t> decompose(std::string_view text) {
  std::vector<utf8proc_int32_t> code_points;
  code_points.reserve(text.size());
  for (size_t offset = 0; offset < text.size();) {
    const Utf8Unit unit = read_utf8(text, offset);
    CHECK(unit.status == Utf8Status::kComplete);
    offset += unit.length;
    utf8proc_int32_t parts[8];
    int last_bound_class = 0;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(unit.code_point), parts, std::size(parts),
                                               kDecompose, &last_bound_class);
    CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(std::size(parts)));
    code_points.insert(code_points.end(), parts, parts + count);
  }
  return code_points;
}

int combining_class(utf8proc_int32_t code_point) { return utf8proc_get_property(code_point)->combining_class; }

// Sorts each run of combining marks by class. utf8proc would do it by swapping neighbours, quadratic in the run.
void order_combining_marks(std::vector<utf8proc_int32_t>& code_points) {
  const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
  for (auto run = code_points.begin(); run != code_points.end();) {
    run = std::find_if(run, code_points.end(), is_mark);
    const auto run_end = std::find_if_not(run, code_points.end(), is_mark);
    std::stable_sort(run, run_end, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    run = run_end;
  }
}

}  // namespace

std::string normalize_nfc(std::string_view text) {
  if (is_trivially_composed(text)) return std::string(text);
  std::vector<utf8proc_int32_t> code_points = decompose(text);
  order_combining_marks(code_points);
  const auto length =
      utf8proc_normalize_utf32(code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()), kCompose);
  CHECK_GE(length, 0);
  std::string composed;
  composed.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < length; ++i) append_utf8(static_cast<char32_t>(code_points[i]), composed);
  return composed;
}

}  // namespace skipper
