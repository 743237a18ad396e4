// Files that are broken by accident or on purpose: each is refused in a sentence of ours, none crashes or takes memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <png.h>
#include <zlib.h>

#include <cstdio>  // jpeglib.h needs FILE declared

#include <jpeglib.h>

#include <random>

#include "base/error.h"
#include "image_fixtures.h"
#include "processor/image_decoder.h"

namespace skipper {
namespace {

using ::testing::AnyOf;
using Bytes = std::vector<uint8_t>;

constexpr const char* kNoError = "";

std::string refusal(const Bytes& file) {
  try {
    decode_image(file, {}, "image");
  } catch (const InvalidRequest& error) {
    return error.what();
  }
  return kNoError;
}

void append(Bytes& out, const std::string& text) { out.insert(out.end(), text.begin(), text.end()); }

void append_u32(Bytes& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<uint8_t>(value >> shift));
}

void append_chunk(Bytes& png, const std::string& name, const Bytes& data) {
  append_u32(png, static_cast<uint32_t>(data.size()));
  const size_t start = png.size();
  append(png, name);
  png.insert(png.end(), data.begin(), data.end());
  append_u32(png, static_cast<uint32_t>(crc32(0, png.data() + start, static_cast<uInt>(png.size() - start))));
}

Bytes png_header(uint32_t width, uint32_t height, uint8_t color_type = 2) {
  Bytes png = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  Bytes header;
  append_u32(header, width);
  append_u32(header, height);
  header.insert(header.end(), {8, color_type, 0, 0, 0});
  append_chunk(png, "IHDR", header);
  return png;
}

Bytes deflated(const Bytes& bytes) {
  Bytes out(compressBound(bytes.size()));
  uLongf num_bytes = out.size();
  compress2(out.data(), &num_bytes, bytes.data(), bytes.size(), 9);
  out.resize(num_bytes);
  return out;
}

// A whole 2 x 2 picture with `chunk` before its pixels.
Bytes png_with_chunk(const std::string& name, const Bytes& chunk) {
  Bytes png = png_header(2, 2);
  append_chunk(png, name, chunk);
  append_chunk(png, "IDAT", deflated(Bytes(14)));
  append_chunk(png, "IEND", {});
  return png;
}

TEST(BadImage, IsRefusedWhenItIsNoPngOrJpeg) {
  const std::vector<std::string> files = {
      "", "x", "\x89PNG", "\xff\xd8", "GIF89a............", "RIFF....WEBPVP8 ", "%PDF-1.7", "BM......", "II*.....",
      "<html></html>", "<svg xmlns=\"\"/>", "<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>",
      std::string("\0\0\0\x0cjP  \r\n\x87\n", 12), std::string(1000, '\0')};
  for (const std::string& file : files) EXPECT_EQ(refusal(Bytes(file.begin(), file.end())), "image is not a PNG or JPEG") << file;
}

TEST(BadImage, IsRefusedWhenTruncatedAnywhere) {
  for (const char* name : {"tiny.png", "interlaced.png", "palette_transparent.png", "444.jpg", "progressive.jpg", "cmyk.jpg",
                           "restarts.jpg", "orientation_6.jpg"}) {
    const Bytes file = read_image_fixture(name);
    ASSERT_EQ(refusal(file), kNoError) << name;
    const size_t step = file.size() > 2000 ? 7 : 1;
    for (size_t size = file.size() - 1; size > 8; size -= std::min(step, size)) {
      const std::string error = refusal(Bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size)));
      ASSERT_THAT(error, AnyOf("PNG is truncated", "JPEG is truncated", "JPEG is corrupt")) << name << " cut to " << size;
    }
  }
}

TEST(BadImage, IsRefusedByTheSizeItsHeaderStates) {
  EXPECT_EQ(refusal(png_header(0, 0)), "PNG of 0 x 0 pixels is empty");
  EXPECT_EQ(refusal(png_header(5, 0)), "PNG of 5 x 0 pixels is empty");
  EXPECT_EQ(refusal(png_header(1u << 31, 1)), "image is 2147483648 x 1 pixels, more than the limit of 32768 on a side");
  EXPECT_EQ(refusal(png_header(~0u, ~0u)), "image is 4294967295 x 4294967295 pixels, more than the limit of 32768 on a side");
  EXPECT_EQ(refusal(png_header(30000, 30000)), "image has 900000000 pixels, more than the limit of 16777216");

  const Bytes jpeg = {0xff, 0xd8, 0xff, 0xc0, 0, 17, 8, 0xff, 0xdc, 0xff, 0xdc, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0,
                      0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 63, 0};
  EXPECT_EQ(refusal(jpeg), "image is 65500 x 65500 pixels, more than the limit of 32768 on a side");
}

TEST(BadImage, IsRefusedWhenJpegHasNoPicture) {
  EXPECT_EQ(refusal({0xff, 0xd8, 0xff}), "JPEG is truncated");
  EXPECT_EQ(refusal({0xff, 0xd8, 0xff, 0xd9}), "JPEG is corrupt");
}

TEST(BadImage, IsRefusedWhenAChecksumOrColourTypeIsWrong) {
  Bytes file = read_image_fixture("rgb.png");
  file[29] ^= 1;  // in the checksum of IHDR
  EXPECT_EQ(refusal(file), "PNG is corrupt");
  file = read_image_fixture("rgb.png");
  file[100] ^= 1;  // in IDAT
  EXPECT_EQ(refusal(file), "PNG is corrupt");
  EXPECT_EQ(refusal(png_header(4, 4, 5)), "PNG is corrupt");
}

TEST(BadImage, IsRefusedWhenPixelDataIsGarbage) {
  Bytes png = png_header(16, 16);
  Bytes with_too_few_rows = png;
  append_chunk(png, "IDAT", Bytes(100, 0xa5));
  append_chunk(png, "IEND", {});
  EXPECT_EQ(refusal(png), "PNG is corrupt");
  append_chunk(with_too_few_rows, "IDAT", deflated(Bytes(49)));
  append_chunk(with_too_few_rows, "IEND", {});
  EXPECT_EQ(refusal(with_too_few_rows), "PNG is corrupt");
}

TEST(BadImage, CostsNothingWhenAncillaryChunksAreBombs) {
  Bytes zeros = deflated(Bytes(size_t{64} << 20));  // 64 KiB that unpack to 64 MiB
  Bytes text = {'k', 0, 0};
  text.insert(text.end(), zeros.begin(), zeros.end());
  for (const char* name : {"zTXt", "iCCP"}) EXPECT_EQ(refusal(png_with_chunk(name, text)), kNoError) << name;
  Bytes many = png_header(2, 2);
  for (int i = 0; i < 20000; ++i) append_chunk(many, "tEXt", {'k', 0, 'v'});
  append_chunk(many, "IDAT", deflated(Bytes(14)));
  append_chunk(many, "IEND", {});
  EXPECT_EQ(refusal(many), kNoError);
}

TEST(BadImage, IsDecodedWhenItsExifBlockIsGarbage) {
  EXPECT_EQ(refusal(png_with_chunk("eXIf", {'M', 'M', 0, 42, 0xff, 0xff, 0xff, 0xff})), kNoError);
}

// A progressive JPEG whose first full scan is repeated.
Bytes jpeg_with_scans(int num_scans) {
  jpeg_compress_struct cinfo = {};
  jpeg_error_mgr errors = {};
  cinfo.err = jpeg_std_error(&errors);
  jpeg_create_compress(&cinfo);
  unsigned char* bytes = nullptr;
  unsigned long num_bytes = 0;
  jpeg_mem_dest(&cinfo, &bytes, &num_bytes);
  cinfo.image_width = cinfo.image_height = 8;
  cinfo.input_components = 1;
  cinfo.in_color_space = JCS_GRAYSCALE;
  jpeg_set_defaults(&cinfo);
  jpeg_scan_info dc = {1, {0}, 0, 0, 0, 0};
  jpeg_scan_info ac = {1, {0}, 1, 63, 0, 0};
  const jpeg_scan_info scans[] = {dc, ac};
  cinfo.scan_info = scans;
  cinfo.num_scans = 2;
  jpeg_start_compress(&cinfo, TRUE);
  JSAMPLE row[8] = {0, 255, 0, 255, 3, 1, 4, 1};
  JSAMPROW rows = row;
  while (cinfo.next_scanline < cinfo.image_height) jpeg_write_scanlines(&cinfo, &rows, 1);
  jpeg_finish_compress(&cinfo);
  Bytes file(bytes, bytes + num_bytes);
  jpeg_destroy_compress(&cinfo);
  std::free(bytes);

  const Bytes marker = {0xff, 0xda};
  const auto last_scan = std::find_end(file.begin(), file.end(), marker.begin(), marker.end());
  const Bytes scan(last_scan, file.end() - 2);
  Bytes out(file.begin(), file.end() - 2);
  for (int i = 2; i < num_scans; ++i) out.insert(out.end(), scan.begin(), scan.end());
  out.insert(out.end(), file.end() - 2, file.end());
  return out;
}

TEST(BadImage, IsRefusedWhenJpegHasScansWithoutEnd) {
  EXPECT_EQ(refusal(jpeg_with_scans(2)), kNoError);
  EXPECT_EQ(refusal(jpeg_with_scans(5000)), "JPEG has more than the limit of 100 scans");
}

TEST(BadImage, IsRefusedWhenJpegHasTwoComponents) {
  Bytes file = read_image_fixture("444.jpg");
  const auto find_marker = [&](uint8_t code) {
    const Bytes marker = {0xff, code};
    return std::search(file.begin(), file.end(), marker.begin(), marker.end());
  };
  const auto frame = find_marker(0xc0);  // length, precision, height, width, count, 3 bytes a component
  frame[3] = 14;
  frame[9] = 2;
  file.erase(frame + 16, frame + 19);
  const auto scan = find_marker(0xda);  // length, count, 2 bytes a component
  scan[3] = 10;
  scan[4] = 2;
  file.erase(scan + 9, scan + 11);
  EXPECT_EQ(refusal(file), "JPEG has 2 colour components; 1, 3 and 4 are read");
}

// Every mutation is either decoded or refused in one of our sentences; under sanitizers this also finds leaks past longjmp.
TEST(BadImage, IsDecodedOrRefusedWhenBytesAreChangedAtRandom) {
  std::mt19937 random(20240229);
  const std::vector<std::string> names = {"tiny.png", "interlaced.png", "palette_transparent.png", "deep_grey.png", "444.jpg",
                                          "422_odd.jpg", "progressive.jpg", "cmyk.jpg", "restarts.jpg", "orientation_6.jpg"};
  for (int i = 0; i < 2000; ++i) {
    const std::string& name = names[static_cast<size_t>(i) % names.size()];
    Bytes file = read_image_fixture(name);
    const size_t num_changes = 1 + random() % 8;
    for (size_t change = 0; change < num_changes; ++change) {
      file[8 + random() % (file.size() - 8)] = static_cast<uint8_t>(random());
    }
    const std::string error = refusal(file);
    if (error == kNoError) continue;
    ASSERT_TRUE(error.starts_with("PNG ") || error.starts_with("JPEG ") || error.starts_with("image ")) << name << ": " << error;
  }
}

}  // namespace
}  // namespace skipper
