#include "kernels/cuda/device_matrix.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/build_config.h"
#include "base/error.h"

namespace skipper::cuda {
namespace {

constexpr int64_t kSteps = 4;  // of a chunk, 16 inputs each
constexpr int64_t kThreads = 128;
constexpr int64_t kBlockRows = 8;  // rows that lie together in panels and in fragments alike
constexpr int64_t kTileBlocks = kTileRows / kBlockRows;
constexpr int64_t kMostWindowWords = kPanelRows * kChunkInputs / 2;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

[[noreturn]] void refuse_format(const WeightFormat& format) {
  throw InvalidRequest("weights in " + name_of(format) + " cannot be multiplied on a GPU; use bf16, int8-gN or int4-gN, N = 32, "
                       "64 or 128",
                       "weights");
}

struct ChunkLayout {
  int64_t code_bytes = 0;
  int64_t num_groups = 0;  // 0 for floats

  int64_t num_bytes() const { return code_bytes + num_groups * kTileRows * int64_t{sizeof(bf16)}; }
};

ChunkLayout chunk_layout(const WeightFormat& format) {
  const int64_t num_groups = format.group_size == 32 ? 2 : 1;
  switch (format.kind) {
    case WeightKind::kBF16:
      return {.code_bytes = 8192};
    case WeightKind::kInt8:
      return {.code_bytes = 4096, .num_groups = num_groups};
    case WeightKind::kInt4:
      return {.code_bytes = 2048, .num_groups = num_groups};
    default:
      refuse_format(format);
  }
}

// From panels.

// Eight rows of a panel.
struct PanelBlock {
  int64_t panel = 0;
  int64_t first_row = 0;  // 0 or 8
};

// Which rows of a packed matrix the rows of the device matrix are, by eight.
enum class RowOrder { kSame, kGateUpByEight };

PanelBlock panel_block(RowOrder order, int64_t block) {
  if (order == RowOrder::kSame) return {block / 2, block % 2 * kBlockRows};
  const int64_t pair = block / 2;  // of eight gate rows and eight up rows
  return {pair / 2 * 2 + block % 2, pair % 2 * kBlockRows};
}

// The bits of one code or BF16 in the words of a panel: see kernels/packed_matrix.h.
struct PanelPlace {
  int64_t word = 0;
  uint32_t mask = 0;
};

PanelPlace panel_place(WeightKind kind, int64_t row, int64_t input) {
  if (kind == WeightKind::kInt4) return {input / 8 * kPanelRows + row, 0xfu << (input % 4 * 8 + input % 8 / 4 * 4)};
  if (kind == WeightKind::kInt8) return {input / 4 * kPanelRows + row, 0xffu << (input % 4 * 8)};
  return {input / 2 * kPanelRows + row, 0xffffu << (input % 2 * 16)};
}

// Words whose codes all stand for 0.
uint32_t word_of_zeros(WeightKind kind) {
  if (kind == WeightKind::kInt4) return 0x88888888u;
  return kind == WeightKind::kInt8 ? 0x80808080u : 0u;
}

// The words of eight rows for the inputs of one chunk; a row's next word is kPanelRows on.
using BlockWords = const uint32_t*;
using TileWords = std::array<BlockWords, kTileBlocks>;
// Where words are completed by padding.
using PaddedWords = std::array<uint32_t, kMostWindowWords>;

// A packed matrix seen as the rows of a device matrix.
class PanelSource {
 public:
  PanelSource(const PackedMatrix& packed, RowOrder order, int64_t num_rows)
      : packed_(packed), order_(order), num_rows_(num_rows) {}

  const PackedMatrix& packed() const { return packed_; }
  MatrixShape shape() const { return {num_rows_, packed_.num_columns}; }

  // Words of rows 8 · block to 8 · block + 7, in place or completed in `padded`.
  BlockWords words(int64_t block, int64_t chunk, PaddedWords& padded) const {
    const int64_t num_rows = rows_of(block);
    const int64_t num_inputs = std::min(kChunkInputs, packed_.num_columns - chunk * kChunkInputs);
    if (num_rows == kBlockRows && num_inputs == kChunkInputs) return words_in_place(block, chunk);
    const WeightKind kind = packed_.format.kind;
    padded.fill(word_of_zeros(kind));
    for (int64_t row = 0; row < num_rows; ++row) {
      for (int64_t input = 0; input < num_inputs; ++input) {
        const PanelPlace place = panel_place(kind, row, input);
        uint32_t& word = padded[static_cast<size_t>(place.word)];
        word = (word & ~place.mask) | (words_in_place(block, chunk)[place.word] & place.mask);
      }
    }
    return padded.data();
  }

  // Scale of row 8 · block + row for the group that begins at `input`; 0 of padding.
  bf16 scale(int64_t block, int64_t row, int64_t input) const {
    if (row >= rows_of(block) || input >= packed_.num_columns) return bf16(0.0f);
    const PanelBlock place = panel_block(order_, block);
    const int64_t group = place.panel * packed_.num_groups() + input / packed_.format.group_size;
    return packed_.scales.data<bf16>()[group * kPanelRows + place.first_row + row];
  }

 private:
  int64_t rows_of(int64_t block) const { return std::clamp<int64_t>(num_rows_ - block * kBlockRows, 0, kBlockRows); }

  BlockWords words_in_place(int64_t block, int64_t chunk) const {
    const PanelBlock place = panel_block(order_, block);
    const uint8_t* panel = packed_.codes.row<uint8_t>(place.panel) + chunk * panel_bytes(packed_.format, kChunkInputs);
    return reinterpret_cast<const uint32_t*>(panel) + place.first_row;
  }

  const PackedMatrix& packed_;
  const RowOrder order_;
  const int64_t num_rows_;
};

// What one thread multiplies with: pairs of two inputs of row g (even pairs) and row g + 8 (odd pairs) of its warp's sixteen
// rows. Pairs 0 and 1 begin at input 2 · c of a step, pairs 2 and 3 eight inputs on.
struct ThreadRows {
  std::array<BlockWords, 2> words;
  int64_t c = 0;

  ThreadRows(const TileWords& tile, int64_t thread) : c(thread % 4) {
    const auto block = static_cast<size_t>(thread / 32 * 2);
    const int64_t g = thread % 32 / 4;
    words = {tile[block] + g, tile[block + 1] + g};
  }
  uint32_t word(int64_t pair, int64_t index) const { return words[static_cast<size_t>(pair % 2)][index * kPanelRows]; }
};

void write_bf16_fragments(const TileWords& tile, std::byte* codes) {
  auto* out = reinterpret_cast<uint32_t*>(codes);
  for (int64_t thread = 0; thread < kThreads; ++thread) {
    const ThreadRows rows(tile, thread);
    for (int64_t step = 0; step < kSteps; ++step) {
      uint32_t* fragment = out + (step * kThreads + thread) * 4;
      for (int64_t pair = 0; pair < 4; ++pair) fragment[pair] = rows.word(pair, 8 * step + 4 * (pair / 2) + rows.c);
    }
  }
}

void write_int8_fragments(const TileWords& tile, std::byte* codes) {
  auto* out = reinterpret_cast<uint16_t*>(codes);
  for (int64_t thread = 0; thread < kThreads; ++thread) {
    const ThreadRows rows(tile, thread);
    for (int64_t step = 0; step < kSteps; ++step) {
      uint16_t* fragment = out + (step / 2 * kThreads + thread) * 8 + step % 2 * 4;
      for (int64_t pair = 0; pair < 4; ++pair) {
        const uint32_t word = rows.word(pair, 4 * step + 2 * (pair / 2) + rows.c / 2);
        fragment[pair] = static_cast<uint16_t>(word >> (rows.c % 2 * 16));
      }
    }
  }
}

void write_int4_fragments(const TileWords& tile, std::byte* codes) {
  auto* out = reinterpret_cast<uint32_t*>(codes);
  for (int64_t thread = 0; thread < kThreads; ++thread) {
    const ThreadRows rows(tile, thread);
    const int64_t shift = rows.c % 2 * 16 + rows.c / 2 * 4;
    for (int64_t step = 0; step < kSteps; ++step) {
      uint32_t fragment = 0;
      for (int64_t pair = 0; pair < 4; ++pair) {
        const uint32_t bytes = rows.word(pair, 2 * step + pair / 2) >> shift;
        fragment |= ((bytes & 0xfu) | (bytes & 0xf00u) << 8) << (4 * pair);
      }
      out[thread * kSteps + step] = fragment;
    }
  }
}

void write_codes(const PanelSource& source, int64_t tile, int64_t chunk, std::byte* codes) {
  std::array<PaddedWords, kTileBlocks> padded;
  TileWords words;
  for (size_t i = 0; i < words.size(); ++i) {
    words[i] = source.words(tile * kTileBlocks + static_cast<int64_t>(i), chunk, padded[i]);
  }
  switch (source.packed().format.kind) {
    case WeightKind::kInt8:
      return write_int8_fragments(words, codes);
    case WeightKind::kInt4:
      return write_int4_fragments(words, codes);
    default:
      return write_bf16_fragments(words, codes);
  }
}

void write_scales(const PanelSource& source, int64_t tile, int64_t first_input, std::byte* scales) {
  auto* out = reinterpret_cast<bf16*>(scales);
  for (int64_t row = 0; row < kTileRows; ++row) {
    out[row] = source.scale(tile * kTileBlocks + row / kBlockRows, row % kBlockRows, first_input);
  }
}

void write_matrix(const PanelSource& source, std::span<std::byte> out) {
  const MatrixShape shape = source.shape();
  const WeightFormat& format = source.packed().format;
  CHECK_EQ(out.size(), device_matrix_bytes(format, shape));
  CHECK_EQ(reinterpret_cast<uintptr_t>(out.data()) % 16, 0u) << "device matrices are packed into 16-byte aligned memory";
  const ChunkLayout layout = chunk_layout(format);
  std::byte* chunk_begin = out.data();
  for (int64_t tile = 0; tile < divide_up(shape.num_rows, kTileRows); ++tile) {
    for (int64_t chunk = 0; chunk < divide_up(shape.num_columns, kChunkInputs); ++chunk) {
      write_codes(source, tile, chunk, chunk_begin);
      for (int64_t group = 0; group < layout.num_groups; ++group) {
        std::byte* scales = chunk_begin + layout.code_bytes + group * kTileRows * int64_t{sizeof(bf16)};
        write_scales(source, tile, chunk * kChunkInputs + group * format.group_size, scales);
      }
      chunk_begin += layout.num_bytes();
    }
  }
}

// Back from the order of the GPU.

// Where a weight of a chunk lies among the threads.
struct FragmentPlace {
  int64_t thread, step, index;

  FragmentPlace(int64_t row, int64_t input)
      : thread(row / 16 * 32 + row % 8 * 4 + input % 8 / 2),
        step(input / 16),
        index(input % 16 / 8 * 4 + row % 16 / 8 * 2 + input % 2) {}
};

template <typename T>
T read(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

int code_minus_zero(WeightKind kind, const std::byte* chunk, const FragmentPlace& place) {
  if (kind == WeightKind::kInt8) {
    return read<uint8_t>(chunk + (place.step / 2 * kThreads + place.thread) * 16 + place.step % 2 * 8 + place.index) - 128;
  }
  const auto word = read<uint32_t>(chunk + (place.thread * kSteps + place.step) * 4);
  return static_cast<int>(word >> (place.index / 2 * 4 + place.index % 2 * 16) & 0xfu) - 8;
}

float weight_at(const WeightFormat& format, const std::byte* chunk, int64_t row, int64_t input) {
  const FragmentPlace place(row, input);
  if (format.kind == WeightKind::kBF16) {
    return static_cast<float>(read<bf16>(chunk + (place.step * kThreads + place.thread) * 16 + place.index * 2));
  }
  const ChunkLayout layout = chunk_layout(format);
  const int64_t group = input * layout.num_groups / kChunkInputs;
  const auto scale = read<bf16>(chunk + layout.code_bytes + (group * kTileRows + row) * int64_t{sizeof(bf16)});
  return static_cast<float>(scale) * static_cast<float>(code_minus_zero(format.kind, chunk, place));
}

Tensor unpacked(const std::byte* bytes, const WeightFormat& format, const MatrixShape& shape) {
  Tensor out = Tensor::empty({shape.num_rows, shape.num_columns}, DType::kF32);
  const int64_t chunk_bytes = chunk_layout(format).num_bytes();
  const int64_t num_chunks = divide_up(shape.num_columns, kChunkInputs);
  for (int64_t row = 0; row < shape.num_rows; ++row) {
    for (int64_t input = 0; input < shape.num_columns; ++input) {
      const int64_t chunk = row / kTileRows * num_chunks + input / kChunkInputs;
      out.row<float>(row)[input] = weight_at(format, bytes + chunk * chunk_bytes, row % kTileRows, input % kChunkInputs);
    }
  }
  return out;
}

// The matrices of a set.

size_t bytes_of(const DeviceMatrices& matrices, int index) {
  return device_matrix_bytes(matrices.formats[static_cast<size_t>(index)], matrices.shape);
}

// Of a place in one memory.
struct MatrixAddress {
  std::byte* bytes = nullptr;
  Device device;
};

// Where each matrix rests.
std::vector<MatrixAddress> addresses_of(const DeviceMatrices& matrices) {
  std::byte* next_on_device = const_cast<std::byte*>(matrices.memory.bytes());
  std::byte* next_on_host = const_cast<std::byte*>(matrices.host_memory.tensor().bytes());
  std::vector<MatrixAddress> addresses;
  for (int i = 0; i < matrices.num_matrices(); ++i) {
    if (matrices.places[static_cast<size_t>(i)] == MatrixPlace::kAbsent) {
      addresses.push_back({});
      continue;
    }
    const bool is_on_host = matrices.places[static_cast<size_t>(i)] == MatrixPlace::kHost;
    std::byte*& next = is_on_host ? next_on_host : next_on_device;
    addresses.push_back({next, is_on_host ? Device::host() : matrices.memory.device()});
    next += bytes_of(matrices, i);
  }
  return addresses;
}

MatrixAddress address_of(const DeviceMatrices& matrices, int index) {
  CHECK(0 <= index && index < matrices.num_matrices()) << "matrix " << index << " of " << matrices.num_matrices();
  CHECK(matrices.places[static_cast<size_t>(index)] != MatrixPlace::kAbsent) << "matrix " << index << " is absent";
  return addresses_of(matrices)[static_cast<size_t>(index)];
}

// Page-locked memory of the host has one address for all.
Tensor table_of(const DeviceMatrices& matrices) {
  Tensor table = Tensor::empty({matrices.num_matrices(), 2}, DType::kI64);
  const std::vector<MatrixAddress> addresses = addresses_of(matrices);
  for (size_t i = 0; i < addresses.size(); ++i) {
    const WeightFormat& format = matrices.formats[i];
    int64_t* entry = table.row<int64_t>(static_cast<int64_t>(i));
    entry[0] = reinterpret_cast<int64_t>(addresses[i].bytes);
    if (matrices.copies.defined() && matrices.places[i] == MatrixPlace::kHost) {
      const ptrdiff_t offset = addresses[i].bytes - matrices.host_memory.tensor().bytes();
      entry[0] = reinterpret_cast<int64_t>(matrices.copies.bytes() + offset);
    }
    entry[1] = static_cast<int64_t>(format.kind) + 256 * int64_t{format.group_size};
  }
  return table;
}

Tensor uploaded_table(const DeviceMatrices& matrices) {
  const Tensor table = table_of(matrices);
  const Device device = matrices.memory.device();
  Tensor copy = Tensor::empty(table.shape(), table.dtype(), device);
  Stream stream(device);
  copy_bytes({table.bytes(), table.device(), copy.bytes(), device, table.num_bytes()}, stream);
  stream.synchronize();
  return copy;
}

size_t bytes_in(MatrixPlace place, const DeviceMatrices& matrices) {
  size_t sum = 0;
  for (int i = 0; i < matrices.num_matrices(); ++i) {
    if (matrices.places[static_cast<size_t>(i)] == place) sum += bytes_of(matrices, i);
  }
  return sum;
}

PinnedTensor pinned_bytes(size_t num_bytes) {
  if constexpr (kBuiltWithCuda) return PinnedTensor({static_cast<int64_t>(num_bytes)}, DType::kU8);
  throw DeviceError("matrices in page-locked host memory need a build with CUDA");
}

}  // namespace

size_t device_matrix_bytes(const WeightFormat& format, const MatrixShape& shape) {
  const int64_t num_chunks = divide_up(shape.num_rows, kTileRows) * divide_up(shape.num_columns, kChunkInputs);
  return static_cast<size_t>(num_chunks * chunk_layout(format).num_bytes());
}

DeviceMatrices empty_device_matrices(std::span<const WeightFormat> formats, const MatrixShape& shape, Device device) {
  const std::vector<MatrixPlace> places(formats.size(), MatrixPlace::kDevice);
  return empty_device_matrices(formats, places, shape, device);
}

DeviceMatrices empty_device_matrices(std::span<const WeightFormat> formats, std::span<const MatrixPlace> places,
                                     const MatrixShape& shape, Device device) {
  CHECK_EQ(places.size(), formats.size());
  DeviceMatrices matrices{.shape = shape,
                          .formats = {formats.begin(), formats.end()},
                          .places = {places.begin(), places.end()},
                          .memory = {},
                          .host_memory = {},
                          .copies = {},
                          .table = {}};
  const auto device_bytes = static_cast<int64_t>(bytes_in(MatrixPlace::kDevice, matrices));
  matrices.memory = Tensor::empty({device_bytes}, DType::kU8, device);
  const size_t host_bytes = bytes_in(MatrixPlace::kHost, matrices);
  if (host_bytes > 0) matrices.host_memory = pinned_bytes(host_bytes);
  matrices.table = uploaded_table(matrices);
  return matrices;
}

DeviceMatrices with_copies(const DeviceMatrices& matrices, const Tensor& copies) {
  CHECK_EQ(copies.num_bytes(), matrices.num_host_bytes());
  CHECK_EQ(reinterpret_cast<uintptr_t>(copies.bytes()) % 128, 0u);
  DeviceMatrices result = matrices;
  result.copies = copies;
  result.table = uploaded_table(result);
  return result;
}

void repack_device_matrix(const PackedMatrix& packed, std::span<std::byte> out) {
  write_matrix(PanelSource(packed, RowOrder::kSame, packed.num_rows), out);
}

void repack_device_gate_up(const PackedMatrix& joined, int64_t intermediate_size, std::span<std::byte> out) {
  CHECK_EQ(intermediate_size % kBlockRows, 0) << "gate and up take turns by eight rows";
  CHECK_EQ(joined.num_panels(), 2 * divide_up(intermediate_size, kPanelRows));
  write_matrix(PanelSource(joined, RowOrder::kGateUpByEight, 2 * intermediate_size), out);
}

void pack_device_matrix(const Tensor& w, const WeightFormat& format, std::span<std::byte> out) {
  chunk_layout(format);  // refuses a format before the work, not after it
  repack_device_matrix(pack(w, format), out);
}

void pack_device_gate_up(const Tensor& gate, const Tensor& up, const WeightFormat& format, std::span<std::byte> out) {
  chunk_layout(format);
  const int64_t num_panels = 2 * divide_up(gate.dim(0), kPanelRows);
  PackedMatrix joined = empty_packed(format, {.num_rows = num_panels * kPanelRows, .num_columns = gate.dim(1)});
  pack_gate_up(gate, up, joined);
  repack_device_gate_up(joined, gate.dim(0), out);
}

void upload_matrix(std::span<const std::byte> packed, int index, DeviceMatrices& matrices, Stream& stream) {
  const MatrixAddress place = address_of(matrices, index);
  CHECK_EQ(packed.size(), bytes_of(matrices, index));
  copy_bytes({packed.data(), Device::host(), place.bytes, place.device, packed.size()}, stream);
}

Tensor read_back(const DeviceMatrices& matrices, int index, Stream& stream) {
  const MatrixAddress place = address_of(matrices, index);
  Tensor copy = Tensor::empty({static_cast<int64_t>(bytes_of(matrices, index))}, DType::kU8);
  copy_bytes({place.bytes, place.device, copy.bytes(), copy.device(), copy.num_bytes()}, stream);
  stream.synchronize();
  return unpacked(copy.bytes(), matrices.formats[static_cast<size_t>(index)], matrices.shape);
}

}  // namespace skipper::cuda
