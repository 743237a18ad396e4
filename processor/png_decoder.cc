#include "processor/png_decoder.h"

#include <glog/logging.h>
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>

namespace skipper {
namespace {

constexpr png_alloc_size_t kMaxChunkBytes = png_alloc_size_t{8} << 20;
constexpr png_uint_32 kMaxCachedChunks = 64;

// Compressed or costly chunks that say nothing about the pixels; five bytes each, as libpng wants them.
constexpr uint8_t kSkippedChunks[] = "iCCP\0zTXt\0iTXt\0tEXt\0sPLT\0hIST\0cHRM\0gAMA\0sRGB\0bKGD\0pHYs\0sBIT\0tIME";
constexpr int kNumSkippedChunks = sizeof(kSkippedChunks) / 5;

// What is left to read, and why reading stopped.
struct PngSource {
  std::span<const uint8_t> rest;
  bool is_truncated = false;
};

void read_bytes(png_structp png, png_bytep out, size_t num_bytes) {
  auto* source = static_cast<PngSource*>(png_get_io_ptr(png));
  if (source->rest.size() < num_bytes) {
    source->is_truncated = true;
    png_error(png, "end of data");
  }
  std::memcpy(out, source->rest.data(), num_bytes);
  source->rest = source->rest.subspan(num_bytes);
}

[[noreturn]] void leave(png_structp png, png_const_charp) { png_longjmp(png, 1); }

void stay_silent(png_structp, png_const_charp) {}

// Owns libpng's two structs. libpng reports an error by longjmp, which must not pass over a destructor: every call that can fail
// runs inside `guarded`, in a lambda without objects that need one.
class PngReader {
 public:
  explicit PngReader(std::span<const uint8_t> file) : source_{file} {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, leave, stay_silent);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw std::bad_alloc();
    }
    png_set_read_fn(png_, &source_, read_bytes);
  }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

  // Reads everything before the pixels and checks the size against the limits.
  void read_header(const ImageLimits& limits);

  // Asks for 8-bit RGB, or RGBA where the file has any transparency; returns which of the two.
  int choose_channels();

  // `pixels` holds height rows of `num_channels` bytes a pixel. Reads to the end of the file, so that a truncated one is found.
  void read_pixels(uint8_t* pixels, int num_channels);

  ImageSize size() const { return {png_get_image_height(png_, info_), png_get_image_width(png_, info_)}; }
  ExifOrientation orientation() const;

 private:
  template <typename Step>
  void guarded(Step step) {
    if (setjmp(png_jmpbuf(png_)) != 0) throw ImageRefused(source_.is_truncated ? "PNG is truncated" : "PNG is corrupt");
    step();
  }

  PngSource source_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

void PngReader::read_header(const ImageLimits& limits) {
  guarded([&] {
    // Our own limits give the better message; libpng's stand for sizes that it would reject as an error of the file.
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_chunk_malloc_max(png_, kMaxChunkBytes);
    png_set_chunk_cache_max(png_, kMaxCachedChunks);
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, kSkippedChunks, kNumSkippedChunks);
    png_read_info(png_, info_);
  });
  check_image_size(limits, size(), "PNG");
}

int PngReader::choose_channels() {
  const bool has_alpha = (png_get_color_type(png_, info_) & PNG_COLOR_MASK_ALPHA) != 0 ||
                         png_get_valid(png_, info_, PNG_INFO_tRNS) != 0;
  guarded([&] {
    png_set_expand(png_);
    png_set_strip_16(png_);
    png_set_gray_to_rgb(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
  });
  const int num_channels = has_alpha ? 4 : 3;
  CHECK_EQ(png_get_rowbytes(png_, info_), static_cast<size_t>(size().width) * num_channels);
  return num_channels;
}

void PngReader::read_pixels(uint8_t* pixels, int num_channels) {
  const ImageSize image = size();
  const int num_passes = png_get_interlace_type(png_, info_) == PNG_INTERLACE_NONE ? 1 : PNG_INTERLACE_ADAM7_PASSES;
  guarded([&] {
    for (int pass = 0; pass < num_passes; ++pass) {
      for (int64_t y = 0; y < image.height; ++y) png_read_row(png_, pixels + y * image.width * num_channels, nullptr);
    }
    png_read_end(png_, info_);
  });
}

ExifOrientation PngReader::orientation() const {
  png_uint_32 num_bytes = 0;
  png_bytep bytes = nullptr;
  if (png_get_eXIf_1(png_, info_, &num_bytes, &bytes) == 0) return ExifOrientation::kUpright;
  return exif_orientation({bytes, num_bytes});
}

// The size as the header states it, before libpng sees the file: it calls sizes of 0 and of 2^31 or more merely "invalid".
void check_stated_size(std::span<const uint8_t> file, const ImageLimits& limits) {
  constexpr size_t kWidthOffset = 16;  // signature, chunk length and "IHDR"
  if (file.size() < kWidthOffset + 8) throw ImageRefused("PNG is truncated");
  if (std::memcmp(file.data() + 12, "IHDR", 4) != 0) throw ImageRefused("PNG is corrupt");
  const auto* width = file.data() + kWidthOffset;
  check_image_size(limits, {png_get_uint_32(width + 4), png_get_uint_32(width)}, "PNG");
}

RgbImage laid_on_white(ImageSize size, const std::vector<uint8_t>& rgba) {
  RgbImage image(size);
  for (size_t i = 0; i < rgba.size() / 4; ++i) {
    const int alpha = rgba[i * 4 + 3];
    for (size_t c = 0; c < 3; ++c) {
      image.pixels[i * 3 + c] = static_cast<uint8_t>((rgba[i * 4 + c] * alpha + 255 * (255 - alpha) + 127) / 255);
    }
  }
  return image;
}

}  // namespace

StoredImage decode_png(std::span<const uint8_t> file, const ImageLimits& limits) {
  check_stated_size(file, limits);
  PngReader reader(file);
  reader.read_header(limits);
  const int num_channels = reader.choose_channels();
  if (num_channels == 3) {
    RgbImage image(reader.size());
    reader.read_pixels(image.pixels.data(), num_channels);
    return {std::move(image), reader.orientation()};
  }
  std::vector<uint8_t> rgba(static_cast<size_t>(reader.size().num_pixels()) * 4);
  reader.read_pixels(rgba.data(), num_channels);
  return {laid_on_white(reader.size(), rgba), reader.orientation()};
}

}  // namespace skipper
