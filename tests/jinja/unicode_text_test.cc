#include "jinja/unicode_text.h"

#include <gtest/gtest.h>

namespace skipper::jinja {
namespace {

TEST(UnicodeText, CountsCharactersNotBytes) {
  EXPECT_EQ(count_characters(""), 0u);
  EXPECT_EQ(count_characters("añ日😀"), 4u);
}

TEST(UnicodeText, TakesBytesThatAreNotUtf8AsCharacters) {
  EXPECT_EQ(count_characters("a\xff\xc3"), 3u);
  EXPECT_EQ(to_upper("a\xff"), "A\xff");
  EXPECT_EQ(strip_right("a\xff\x80"), "a\xff\x80");
}

TEST(UnicodeText, StripsEverySpaceOfPython) {
  EXPECT_EQ(strip_left(strip_right("\u00a0\u2003\t\x1f a b \u3000\u2028\u0085")), "a b");
  EXPECT_EQ(strip_right("a\u200b"), "a\u200b");  // a zero width space is none
  EXPECT_EQ(strip_left(" \n"), "");
  EXPECT_EQ(strip_right(""), "");
}

TEST(UnicodeText, StripsOnlyTheGivenCharacters) {
  EXPECT_EQ(strip_left("ééa", "é"), "a");
  EXPECT_EQ(strip_right("a日日", "日本"), "a");
  EXPECT_EQ(strip_right("aé", "\xa9"), "aé");  // a byte of é is not é
}

TEST(UnicodeText, CapitalizesWordsAsPythonDoes) {
  EXPECT_EQ(title_case("they're bill's ÉTÉ"), "They'Re Bill'S Été");
  EXPECT_EQ(capitalize("éCOLE"), "École");
  EXPECT_EQ(capitalize(""), "");
}

}  // namespace
}  // namespace skipper::jinja
