#include "kernels/integer_packing.h"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "base/error.h"
#include "kernels/group_quantizer.h"

namespace skipper {
namespace {

constexpr int64_t kMaxGroup = 128;
constexpr int64_t kWordsPerGroup = kMaxGroup / 4;
// Words of a row that make a chunk of three or two bits.
constexpr int kInt3Words = 8, kInt2Words = 4;

// The codes of one group of the sixteen rows of a panel, one byte each; four of them are handled as a word. Bytes beyond the
// last input are 0.
struct GroupBlock {
  alignas(64) uint8_t codes[kPanelRows][kMaxGroup] = {};

  uint32_t word(int64_t row, int64_t index) const {
    uint32_t word;
    std::memcpy(&word, &codes[row][4 * index], sizeof(word));
    return word;
  }
  void add_to_word(int64_t row, int64_t index, uint32_t bits) {
    const uint32_t sum = word(row, index) | bits;
    std::memcpy(&codes[row][4 * index], &sum, sizeof(sum));
  }
};

// Chunks of one group in a panel: [chunk][plane][row 16] words of four codes' bits.
class PanelWords {
 public:
  explicit PanelWords(std::byte* bytes) : bytes_(bytes) {}
  uint32_t get(int64_t vector, int64_t row) const {
    uint32_t word;
    std::memcpy(&word, at(vector, row), sizeof(word));
    return word;
  }
  void set(int64_t vector, int64_t row, uint32_t word) const { std::memcpy(at(vector, row), &word, sizeof(word)); }

 private:
  std::byte* at(int64_t vector, int64_t row) const { return bytes_ + (vector * kPanelRows + row) * 4; }
  std::byte* bytes_;
};

int words_per_chunk(const WeightFormat& format) {
  switch (format.bits_per_code()) {
    case 8:
      return 1;
    case 4:
      return 2;
    case 3:
      return kInt3Words;
    default:
      return kInt2Words;
  }
}

int vectors_per_chunk(const WeightFormat& format) { return format.bits_per_code() == 3 ? 3 : 1; }

// Bytes of all sixteen rows for `num_columns` inputs.
int64_t packed_chunk_bytes(const WeightFormat& format, int64_t num_columns) {
  const int64_t columns_per_chunk = 4 * words_per_chunk(format);
  return (num_columns + columns_per_chunk - 1) / columns_per_chunk * vectors_per_chunk(format) * kPanelRows * 4;
}

// Where `bits` low bits of the codes of word `index` of a chunk lie in vector `vector`, shifted up by `shift`.
struct BitPlace {
  int vector, shift;
  uint32_t mask;       // of the code's bits, in each of the four bytes
  int code_shift;      // of these bits within the code
};

uint32_t in_each_byte(uint32_t bits) { return bits * 0x01010101u; }

// At most two places: low and high bits.
struct BitPlaces {
  BitPlace place[2];
  int count;
};

BitPlaces places_of(const WeightFormat& format, int index) {
  switch (format.bits_per_code()) {
    case 8:
      return {{{0, 0, in_each_byte(255), 0}}, 1};
    case 4:
      return {{{0, 4 * index, in_each_byte(15), 0}}, 1};
    case 3:
      return {{{index / kInt2Words, 2 * (index % kInt2Words), in_each_byte(3), 0}, {2, index, in_each_byte(1), 2}}, 2};
    default:
      return {{{0, 2 * index, in_each_byte(3), 0}}, 1};
  }
}

void store_chunks(const WeightFormat& format, const GroupBlock& block, int64_t num_columns, PanelWords words) {
  const int chunk_words = words_per_chunk(format), chunk_vectors = vectors_per_chunk(format);
  const int64_t num_chunks = (num_columns + 4 * chunk_words - 1) / (4 * chunk_words);
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    uint32_t vectors[3][kPanelRows] = {};
    for (int index = 0; index < chunk_words; ++index) {
      const BitPlaces places = places_of(format, index);
      for (const BitPlace& place : std::span(places.place).first(static_cast<size_t>(places.count))) {
        for (int64_t row = 0; row < kPanelRows; ++row) {
          vectors[place.vector][row] |= (block.word(row, chunk * chunk_words + index) >> place.code_shift & place.mask)
                                        << place.shift;
        }
      }
    }
    for (int vector = 0; vector < chunk_vectors; ++vector) {
      for (int64_t row = 0; row < kPanelRows; ++row) words.set(chunk * chunk_vectors + vector, row, vectors[vector][row]);
    }
  }
}

GroupBlock load_chunks(const WeightFormat& format, int64_t num_columns, PanelWords words) {
  GroupBlock block;
  const int chunk_words = words_per_chunk(format), chunk_vectors = vectors_per_chunk(format);
  for (int64_t index = 0; index < (num_columns + 3) / 4; ++index) {
    const int64_t first_vector = index / chunk_words * chunk_vectors;
    const BitPlaces places = places_of(format, static_cast<int>(index % chunk_words));
    for (const BitPlace& place : std::span(places.place).first(static_cast<size_t>(places.count))) {
      for (int64_t row = 0; row < kPanelRows; ++row) {
        const uint32_t bits = words.get(first_vector + place.vector, row) >> place.shift & place.mask;
        block.add_to_word(row, index, bits << place.code_shift);
      }
    }
  }
  return block;
}

// One group of one panel of a matrix.
struct GroupPlace {
  int64_t panel, group;
  int64_t column_begin, num_columns;

  GroupPlace(const PackedMatrix& packed, int64_t panel_index, int64_t group_index)
      : panel(panel_index), group(group_index), column_begin(group * packed.format.group_size),
        num_columns(std::min<int64_t>(packed.format.group_size, packed.num_columns - column_begin)) {}

  int64_t side_data(const PackedMatrix& packed) const { return (panel * packed.num_groups() + group) * kPanelRows; }
  int64_t code_bytes(const PackedMatrix& packed) const {
    return panel * packed.codes.dim(1) + packed_chunk_bytes(packed.format, column_begin);
  }
};

void refuse_unless_finite(std::span<const float> weights, int64_t row, int64_t column_begin) {
  for (size_t i = 0; i < weights.size(); ++i) {
    if (std::isfinite(weights[i])) continue;
    throw InvalidRequest("weight " + std::to_string(weights[i]) + " at row " + std::to_string(row) + ", column " +
                             std::to_string(column_begin + static_cast<int64_t>(i)) +
                             " cannot become an integer code; check the checkpoint",
                         "weight");
  }
}

// Zero or NaN: cheap to find in a whole group.
bool all_finite(std::span<const float> weights) {
  float sum = 0;
  for (const float weight : weights) sum += weight * 0.0f;
  return sum == 0.0f;
}

void copy_weights(const Tensor& w, int64_t first, std::span<float> weights) {
  if (w.dtype() == DType::kBF16) {
    const bf16* source = w.data<bf16>() + first;
    for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(source[i]);
  } else {
    std::copy_n(w.data<float>() + first, weights.size(), weights.begin());
  }
}

void pack_group(const Tensor& w, std::span<const float> importance, const GroupPlace& place, PackedMatrix& packed) {
  const auto count = static_cast<size_t>(place.num_columns);
  const int64_t row_begin = place.panel * kPanelRows;
  const std::span<const float> group_importance =
      importance.empty() ? importance : importance.subspan(static_cast<size_t>(place.column_begin), count);
  GroupBlock block;
  GroupCodes of_row[kPanelRows] = {};
  for (int64_t row = row_begin; row < std::min(row_begin + kPanelRows, packed.num_rows); ++row) {
    float storage[kMaxGroup];
    const std::span<float> weights = std::span(storage).first(count);
    copy_weights(w, row * packed.num_columns + place.column_begin, weights);
    if (!all_finite(weights)) refuse_unless_finite(weights, row, place.column_begin);
    of_row[row - row_begin] =
        quantize_group(weights, group_importance, packed.format, std::span(block.codes[row - row_begin]).first(count));
  }
  store_chunks(packed.format, block, place.num_columns, PanelWords(packed.codes.bytes() + place.code_bytes(packed)));
  const int64_t side_data = place.side_data(packed);
  for (int64_t row = 0; row < kPanelRows; ++row) {
    packed.scales.data<bf16>()[side_data + row] = of_row[row].scale;
    if (packed.zeros.defined()) packed.zeros.data<uint8_t>()[side_data + row] = of_row[row].zero;
  }
}

void unpack_group(const PackedMatrix& packed, const GroupPlace& place, Tensor& out) {
  // Read only, but PanelWords serves both directions.
  auto* codes = const_cast<std::byte*>(packed.codes.bytes()) + place.code_bytes(packed);
  const GroupBlock block = load_chunks(packed.format, place.num_columns, PanelWords(codes));
  const int64_t side_data = place.side_data(packed), row_begin = place.panel * kPanelRows;
  const int symmetric_zero = 1 << (packed.format.bits_per_code() - 1);
  for (int64_t row = row_begin; row < std::min(row_begin + kPanelRows, packed.num_rows); ++row) {
    const int64_t lane = row - row_begin;
    const auto scale = static_cast<float>(packed.scales.data<bf16>()[side_data + lane]);
    const int zero = packed.zeros.defined() ? packed.zeros.data<uint8_t>()[side_data + lane] : symmetric_zero;
    float* target = out.data<float>() + row * packed.num_columns + place.column_begin;
    for (int64_t i = 0; i < place.num_columns; ++i) target[i] = scale * static_cast<float>(block.codes[lane][i] - zero);
  }
}

}  // namespace

void pack_integer_rows(const Tensor& w, PackedMatrix& packed) { pack_integer_rows(w, {}, packed); }

void pack_integer_rows(const Tensor& w, std::span<const float> importance, PackedMatrix& packed) {
  CHECK(packed.format.is_integer());
  CHECK(w.shape() == Shape({packed.num_rows, packed.num_columns})) << w.shape().to_string();
  CHECK(importance.empty() || static_cast<int64_t>(importance.size()) == packed.num_columns);
  for (int64_t panel = 0; panel < packed.num_panels(); ++panel) {
    for (int64_t group = 0; group < packed.num_groups(); ++group) {
      pack_group(w, importance, GroupPlace(packed, panel, group), packed);
    }
  }
}

void unpack_integer(const PackedMatrix& packed, Tensor& out) {
  CHECK(packed.format.is_integer());
  CHECK(out.shape() == Shape({packed.num_rows, packed.num_columns})) << out.shape().to_string();
  for (int64_t panel = 0; panel < packed.num_panels(); ++panel) {
    for (int64_t group = 0; group < packed.num_groups(); ++group) {
      unpack_group(packed, GroupPlace(packed, panel, group), out);
    }
  }
}

}  // namespace skipper
