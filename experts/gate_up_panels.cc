#include "experts/gate_up_panels.h"

#include <glog/logging.h>

#include <cstring>

namespace skipper {
namespace {

int64_t num_panels(int64_t num_rows) { return (num_rows + kPanelRows - 1) / kPanelRows; }

void check_half(const PackedShape& half, const PackedMatrix& joined) {
  const PackedShape expected = joined_shape(half);
  CHECK(joined.num_rows == expected.num_rows && joined.num_columns == expected.num_columns)
      << "a gate of [" << half.num_rows << ", " << half.num_columns << "] does not fit [" << joined.num_rows << ", "
      << joined.num_columns << "]";
}

// To every second panel of `joined`, from `first` on.
void copy_half(const Tensor& half, int64_t first, Tensor& joined) {
  if (!half.defined()) return;
  for (int64_t panel = 0; panel < half.dim(0); ++panel) {
    const Tensor source = half.at(panel);
    std::memcpy(joined.at(first + 2 * panel).bytes(), source.bytes(), source.num_bytes());
  }
}

}  // namespace

PackedShape joined_shape(const PackedShape& half) { return {2 * kPanelRows * num_panels(half.num_rows), half.num_columns}; }

void join_panels(const PackedMatrix& gate, const PackedMatrix& up, PackedMatrix& joined) {
  CHECK(gate.format == joined.format && up.format == joined.format) << "halves of several formats";
  check_half({gate.num_rows, gate.num_columns}, joined);
  check_half({up.num_rows, up.num_columns}, joined);
  for (int half = 0; half < 2; ++half) {
    const PackedMatrix& source = half == 0 ? gate : up;
    copy_half(source.codes, half, joined.codes);
    copy_half(source.scales, half, joined.scales);
    copy_half(source.zeros, half, joined.zeros);
  }
}

}  // namespace skipper
