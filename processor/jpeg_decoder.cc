#include "processor/jpeg_decoder.h"

#include <csetjmp>
#include <cstdio>  // jpeglib.h needs FILE and size_t declared

#include <jpeglib.h>

#include <jerror.h>

#include <algorithm>
#include <array>

namespace skipper {
namespace {

// Each scan of a progressive file is a pass over the whole picture; encoders write about ten.
constexpr int kMaxScans = 100;

constexpr std::array<uint8_t, 6> kExifHeader = {'E', 'x', 'i', 'f', 0, 0};

enum class JpegFailure { kNone, kTruncated, kTooManyScans, kUnsupported, kCorrupt };

// libjpeg finds this through cinfo->err, so its own struct comes first.
struct JpegErrors {
  jpeg_error_mgr manager = {};
  std::jmp_buf on_failure = {};
  JpegFailure failure = JpegFailure::kNone;
};

const char* sentence(JpegFailure failure) {
  switch (failure) {
    case JpegFailure::kTruncated: return "JPEG is truncated";
    case JpegFailure::kTooManyScans: return "JPEG has more than the limit of 100 scans";
    case JpegFailure::kUnsupported: return "JPEG is of a kind that is not read: save it as 8-bit baseline or progressive";
    case JpegFailure::kNone:
    case JpegFailure::kCorrupt: break;
  }
  return "JPEG is corrupt";
}

[[noreturn]] void leave(j_common_ptr cinfo, JpegFailure failure) {
  auto* errors = reinterpret_cast<JpegErrors*>(cinfo->err);
  errors->failure = failure;
  std::longjmp(errors->on_failure, 1);
}

JpegFailure failure_of(int message_code) {
  switch (message_code) {
    case JERR_INPUT_EMPTY:
    case JERR_INPUT_EOF:
    case JWRN_JPEG_EOF: return JpegFailure::kTruncated;
    case JERR_ARITH_NOTIMPL:
    case JERR_BAD_PRECISION:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_SOF_UNSUPPORTED: return JpegFailure::kUnsupported;
    default: return JpegFailure::kCorrupt;
  }
}

void on_error(j_common_ptr cinfo) { leave(cinfo, failure_of(cinfo->err->msg_code)); }

// libjpeg goes on after damage, with grey where pixels are missing: an answer about such a picture would be about nothing.
// What is left to pass are slips of encoders that cost no pixel.
void on_message(j_common_ptr cinfo, int level) {
  if (level >= 0) return;
  switch (cinfo->err->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
    case JWRN_TOO_MUCH_DATA: return;
    default: leave(cinfo, failure_of(cinfo->err->msg_code));
  }
}

void say_nothing(j_common_ptr) {}

void on_progress(j_common_ptr cinfo) {
  if (reinterpret_cast<j_decompress_ptr>(cinfo)->input_scan_number > kMaxScans) leave(cinfo, JpegFailure::kTooManyScans);
}

// Owns libjpeg's struct. libjpeg reports an error by longjmp, which must not pass over a destructor: every call that can fail
// runs inside `guarded`, in a lambda without objects that need one.
class JpegReader {
 public:
  explicit JpegReader(std::span<const uint8_t> file);
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;
  ~JpegReader() { jpeg_destroy_decompress(&cinfo_); }

  // Reads everything before the pixels and checks the size against the limits.
  void read_header(const ImageLimits& limits);

  // Asks for RGB, or CMYK where the file has four components; returns the number of channels.
  int choose_channels();

  // `pixels` holds height rows of that many bytes a pixel. Reads to the end of the file, so that a truncated one is found.
  void read_pixels(uint8_t* pixels);

  ImageSize size() const { return {cinfo_.image_height, cinfo_.image_width}; }
  ExifOrientation orientation() const;

 private:
  template <typename Step>
  void guarded(Step step) {
    if (setjmp(errors_.on_failure) != 0) throw ImageRefused(sentence(errors_.failure));
    step();
  }

  JpegErrors errors_;
  jpeg_progress_mgr progress_ = {};
  jpeg_decompress_struct cinfo_ = {};
};

JpegReader::JpegReader(std::span<const uint8_t> file) {
  cinfo_.err = jpeg_std_error(&errors_.manager);
  errors_.manager.error_exit = on_error;
  errors_.manager.emit_message = on_message;
  errors_.manager.output_message = say_nothing;
  progress_.progress_monitor = on_progress;
  if (setjmp(errors_.on_failure) != 0) {
    // No destructor runs for an object that was never made.
    jpeg_destroy_decompress(&cinfo_);
    throw ImageRefused(sentence(errors_.failure));
  }
  jpeg_create_decompress(&cinfo_);
  cinfo_.progress = &progress_;
  jpeg_mem_src(&cinfo_, file.data(), file.size());
}

void JpegReader::read_header(const ImageLimits& limits) {
  guarded([&] {
    jpeg_save_markers(&cinfo_, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&cinfo_, TRUE);
  });
  check_image_size(limits, size(), "JPEG");
}

int JpegReader::choose_channels() {
  if (cinfo_.num_components != 1 && cinfo_.num_components != 3 && cinfo_.num_components != 4) {
    throw ImageRefused("JPEG has " + std::to_string(cinfo_.num_components) + " colour components; 1, 3 and 4 are read");
  }
  cinfo_.out_color_space = cinfo_.num_components == 4 ? JCS_CMYK : JCS_RGB;
  guarded([&] { jpeg_start_decompress(&cinfo_); });
  return cinfo_.output_components;
}

void JpegReader::read_pixels(uint8_t* pixels) {
  const size_t row_bytes = size_t{cinfo_.output_width} * static_cast<size_t>(cinfo_.output_components);
  guarded([&] {
    while (cinfo_.output_scanline < cinfo_.output_height) {
      JSAMPROW row = pixels + cinfo_.output_scanline * row_bytes;
      jpeg_read_scanlines(&cinfo_, &row, 1);
    }
    jpeg_finish_decompress(&cinfo_);
  });
}

ExifOrientation JpegReader::orientation() const {
  for (jpeg_saved_marker_ptr marker = cinfo_.marker_list; marker != nullptr; marker = marker->next) {
    const std::span<const uint8_t> bytes(marker->data, marker->data_length);
    if (bytes.size() < kExifHeader.size()) continue;
    if (!std::equal(kExifHeader.begin(), kExifHeader.end(), bytes.begin())) continue;
    return exif_orientation(bytes.subspan(kExifHeader.size()));
  }
  return ExifOrientation::kUpright;
}

// Adobe's polarity, which nearly all CMYK files have: 255 is no ink.
RgbImage from_cmyk(ImageSize size, const std::vector<uint8_t>& cmyk) {
  RgbImage image(size);
  for (size_t i = 0; i < cmyk.size() / 4; ++i) {
    const int black = cmyk[i * 4 + 3];
    for (size_t c = 0; c < 3; ++c) image.pixels[i * 3 + c] = static_cast<uint8_t>((cmyk[i * 4 + c] * black + 127) / 255);
  }
  return image;
}

}  // namespace

StoredImage decode_jpeg(std::span<const uint8_t> file, const ImageLimits& limits) {
  JpegReader reader(file);
  reader.read_header(limits);
  // libjpeg frees its markers when decoding ends.
  const ExifOrientation orientation = reader.orientation();
  const int num_channels = reader.choose_channels();
  if (num_channels == 3) {
    RgbImage image(reader.size());
    reader.read_pixels(image.pixels.data());
    return {std::move(image), orientation};
  }
  std::vector<uint8_t> cmyk(static_cast<size_t>(reader.size().num_pixels()) * 4);
  reader.read_pixels(cmyk.data());
  return {from_cmyk(reader.size(), cmyk), orientation};
}

}  // namespace skipper
