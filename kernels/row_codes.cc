#include "kernels/row_codes.h"

#include "kernels/operand_checks.h"

namespace skipper {

namespace {

void check_coded(const char* kernel, const Tensor& coded, const Shape& shape) {
  CHECK(coded.dtype() == DType::kU8) << kernel << ": coded rows are " << name_of(coded.dtype());
  CHECK(coded.shape() == shape) << kernel << ": coded rows " << coded.shape().to_string();
}

void check_rows(const char* kernel, const Tensor& rows) {
  CHECK_EQ(rows.shape().rank(), 2) << kernel << ": rows " << rows.shape().to_string();
  check_f32(kernel, rows, rows.shape());
}

}  // namespace

void encode_rows(const Tensor& x, RowCode code, Tensor& coded, Stream& stream) {
  check_on_host("encode_rows", {&x, &coded});
  check_rows("encode_rows", x);
  check_coded("encode_rows", coded, {x.dim(0), coded_row_bytes(x.dim(1))});
  cpu::encode_rows(x, code, coded, stream.workers());
}

void decode_rows(const Tensor& coded, RowCode code, Tensor& y, Stream& stream) {
  check_on_host("decode_rows", {&coded, &y});
  check_rows("decode_rows", y);
  check_coded("decode_rows", coded, {y.dim(0), coded_row_bytes(y.dim(1))});
  cpu::decode_rows(coded, nullptr, code, y, stream.workers());
}

void decode_listed_rows(const Tensor& coded, const Tensor& row_index, RowCode code, Tensor& y, Stream& stream) {
  check_on_host("decode_listed_rows", {&coded, &row_index, &y});
  check_rows("decode_listed_rows", y);
  check_index("decode_listed_rows", row_index);
  check_coded("decode_listed_rows", coded, {coded.dim(0), coded_row_bytes(y.dim(1))});
  CHECK_EQ(row_index.dim(0), y.dim(0)) << "decode_listed_rows: y " << y.shape().to_string();
  for (const int32_t row : row_index.span<int32_t>()) {
    CHECK(row >= 0 && row < coded.dim(0)) << "decode_listed_rows: row " << row << " of " << coded.dim(0);
  }
  cpu::decode_rows(coded, row_index.data<int32_t>(), code, y, stream.workers());
}

}  // namespace skipper
