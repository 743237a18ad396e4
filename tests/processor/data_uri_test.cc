#include "processor/data_uri.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace skipper {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes decoded(const std::string& uri) { return decode_data_uri(uri, 100, "url"); }

std::string refusal(const std::string& uri, size_t max_bytes = 100) {
  try {
    decode_data_uri(uri, max_bytes, "messages[2].content[0].image_url.url");
  } catch (const InvalidRequest& error) {
    EXPECT_EQ(error.param(), "messages[2].content[0].image_url.url");
    return error.what();
  }
  return "";
}

TEST(DataUri, DecodesEveryPadding) {
  EXPECT_EQ(decoded("data:image/png;base64,AA=="), Bytes({0}));
  EXPECT_EQ(decoded("data:image/png;base64,AAE="), Bytes({0, 1}));
  EXPECT_EQ(decoded("data:image/jpeg;base64,AAEC"), Bytes({0, 1, 2}));
  EXPECT_EQ(decoded("data:image/jpg;base64,+/+/AAEC/w=="), Bytes({0xfb, 0xff, 0xbf, 0, 1, 2, 0xff}));
}

TEST(DataUri, IgnoresTheCaseOfSchemeAndType) { EXPECT_EQ(decoded("DATA:Image/PNG;Base64,AA=="), Bytes({0})); }

TEST(DataUri, RefusesEverythingThatWouldBeFetched) {
  for (const char* uri : {"http://127.0.0.1/a.png", "https://example.com/a.png", "file:///etc/passwd", "/etc/passwd",
                          "unix:/run/x", "\\\\host\\share", "", "data", "//[::1]/", "ftp://x",
                          " data:image/png;base64,AA=="}) {
    EXPECT_EQ(refusal(uri), "only data: URIs are accepted") << uri;
  }
}

TEST(DataUri, RefusesOtherHeads) {
  for (const char* uri : {"data:,x", "data:image/png,x", "data:image/png;base64", "data:image/svg+xml;base64,AA==",
                          "data:;base64,AA==", "data:image/png;charset=x;base64,AA==", "data:image/gif;base64,AA==",
                          "data:text/html;base64,AA=="}) {
    EXPECT_EQ(refusal(uri), "data: URI must begin with data:image/png;base64, or data:image/jpeg;base64,") << uri;
  }
}

TEST(DataUri, RefusesMalformedBase64) {
  const std::string head = "data:image/png;base64,";
  EXPECT_EQ(refusal(head), "data: URI holds no bytes");
  for (const char* digits : {"A", "AA", "AAA", "AAAAA", "A==", "AAAA\n"}) {
    EXPECT_EQ(refusal(head + digits), "base64 of the data: URI is not a multiple of 4 characters long") << digits;
  }
  for (const char* digits : {"A===", "====", "AA=A", "AA==AAAA", "A-_A", "AA A", "AAA\n", "AB==", "AAB=", "%3D%", "AA\xc3\xa9"}) {
    EXPECT_EQ(refusal(head + digits), "base64 of the data: URI is malformed") << digits;
  }
  EXPECT_EQ(refusal(head + std::string("AA\0A", 4)), "base64 of the data: URI is malformed");
}

TEST(DataUri, RefusesMoreBytesThanTheLimitBeforeDecoding) {
  const std::string uri = "data:image/png;base64,!!!!!!!=";
  EXPECT_EQ(refusal(uri, 4), "image file has 5 bytes, more than the limit of 4");
  EXPECT_EQ(refusal(uri, 5), "base64 of the data: URI is malformed");
}

}  // namespace
}  // namespace skipper
