#include "audit/audit_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"

namespace skipper {
namespace {

using ::testing::HasSubstr;

AuditHeader header() {
  return {.model_fingerprint = "abc",
          .num_moe_layers = 3,
          .num_experts = 16,
          .rank = 1,
          .node_of_rank = {0, 0, 1},
          .bytes_per_row = 640};
}

RoutingRecord record() {
  return {.request = 7,
          .position = 19,
          .layer = 4,
          .moe_layer = 2,
          .token_class = TokenClass::kVision,
          .phase = TokenPhase::kGenerated,
          .level = 3,
          .experts = {3, 15, 0},
          .weights = {0.5f, 0.3f, 0.1f},
          .kept = {true, false, true},
          .scores = {0.1f, 1e-9f, 3e-39f},
          .threshold = 0.03f,
          .destinations = {0, 2}};
}

// Experts dealt out in turn; rank 1 has shadows of the first experts of two layers.
AuditHeader planned_header() {
  AuditHeader planned = header();
  planned.shadow_errors.assign(3 * 16, kNoShadow);
  for (int i = 0; i < 3 * 16; ++i) planned.owners.push_back(i % 3);
  planned.shadow_errors[0] = 0.031f;
  planned.shadow_errors[17] = 1.0f;
  return planned;
}

std::string message_of(const std::string& line, const AuditHeader& of_file = header()) {
  try {
    parse_audit_entry(line, of_file, "a.jsonl: line 2");
  } catch (const InvalidFile& error) {
    return error.what();
  }
  return "accepted";
}

// The record's line with one key changed.
std::string changed(const std::string& key, const nlohmann::json& value) {
  nlohmann::json line = nlohmann::json::parse(to_line(record()));
  line[key] = value;
  return line.dump();
}

TEST(AuditLines, HeaderReadsBackAsItWas) {
  EXPECT_EQ(parse_audit_header(to_line(header()), "x"), header());
}

TEST(AuditLines, RecordReadsBackAsItWas) {
  EXPECT_EQ(std::get<RoutingRecord>(parse_audit_entry(to_line(record()), header(), "x")), record());
}

TEST(AuditLines, OwnersAndShadowsReadBackAsTheyWere) {
  EXPECT_EQ(parse_audit_header(to_line(planned_header()), "x"), planned_header());
  AuditHeader blocks_with_shadows = header();
  blocks_with_shadows.shadow_errors.assign(3 * 16, kNoShadow);
  EXPECT_EQ(parse_audit_header(to_line(blocks_with_shadows), "x"), blocks_with_shadows);
  RoutingRecord written = record();
  written.on_shadow = {true, false, false};
  EXPECT_EQ(std::get<RoutingRecord>(parse_audit_entry(to_line(written), planned_header(), "x")), written);
}

TEST(AuditLines, SayTheVersionOfTheExpertsWhereTheyAreSwitched) {
  EXPECT_EQ(to_line(record()).find("plan_version"), std::string::npos);
  RoutingRecord written = record();
  written.plan_version = 12;
  EXPECT_NE(to_line(written).find("\"level\":3,\"plan_version\":12,"), std::string::npos) << to_line(written);
  EXPECT_EQ(std::get<RoutingRecord>(parse_audit_entry(to_line(written), header(), "x")), written);
}

TEST(AuditLines, EveryFloatReadsBackBitForBit) {
  std::mt19937 generator(5);
  RoutingRecord written = record();
  written.scores.clear();
  while (written.scores.size() < 20000) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(generator()));
    if (std::isfinite(value)) written.scores.push_back(value);
  }
  const auto read = std::get<RoutingRecord>(parse_audit_entry(to_line(written), header(), "x"));
  for (size_t i = 0; i < written.scores.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(read.scores[i]), std::bit_cast<uint32_t>(written.scores[i]));
  }
}

TEST(AuditLines, NumbersThatJsonLacksComeBackAsNan) {
  RoutingRecord written = record();
  written.weights[1] = std::numeric_limits<float>::quiet_NaN();
  const auto read = std::get<RoutingRecord>(parse_audit_entry(to_line(written), header(), "x"));
  EXPECT_TRUE(std::isnan(read.weights[1]));
}

TEST(AuditLines, LevelTableReadsBackAsItWas) {
  LevelTable levels = unskipped_levels(3);
  levels.version = 5;
  levels.levels.push_back(levels.levels[0]);
  levels.levels[1].tau = {0.1f, 0.2f};
  levels.levels[1].protect_top1 = true;
  const auto read = std::get<LevelTable>(parse_audit_entry(to_line(levels), header(), "x"));
  EXPECT_EQ(read.version, 5u);
  EXPECT_EQ(read.levels, levels.levels);
}

TEST(AuditLines, FindsATableWhoseReadableHalfWasEdited) {
  nlohmann::json line = nlohmann::json::parse(to_line(unskipped_levels(3)));
  line["table"]["version"] = 9;
  EXPECT_THAT(message_of(line.dump()), HasSubstr("a.jsonl: line 2: table: differs from the encoded table"));
  line["encoded"] = "0g";
  EXPECT_THAT(message_of(line.dump()), HasSubstr("encoded: is not hexadecimal"));
  line["encoded"] = "00ff";
  EXPECT_THAT(message_of(line.dump()), HasSubstr("encoded: is no level table"));
}

TEST(AuditLines, RefusesDamagedRecordsNamingLineAndKey) {
  EXPECT_THAT(message_of("{\"request\":1"), HasSubstr("a.jsonl: line 2: is no JSON object"));
  EXPECT_THAT(message_of("[]"), HasSubstr("is no JSON object"));
  EXPECT_THAT(message_of(changed("moe_layer", 3)), HasSubstr("moe_layer"));
  EXPECT_THAT(message_of(changed("class", "audio")), HasSubstr("class: 'audio' is unknown"));
  EXPECT_THAT(message_of(changed("experts", {1, 2, 16})), HasSubstr("experts: 16"));
  EXPECT_THAT(message_of(changed("experts", nlohmann::json::array())), HasSubstr("experts: is empty"));
  EXPECT_THAT(message_of(changed("kept", {true})), HasSubstr("kept: has another length"));
  EXPECT_THAT(message_of(changed("kept", {1, 0, 1})), HasSubstr("kept: expected true or false"));
  EXPECT_THAT(message_of(changed("weights", "many")), HasSubstr("weights: expected a list"));
  EXPECT_THAT(message_of(changed("weights", {0.1, 0.2})), HasSubstr("weights: has another length"));
  EXPECT_THAT(message_of(changed("wieght", 1)), HasSubstr("wieght"));
}

TEST(AuditLines, RefusesShadowsThatTheHeaderOrTheDecisionRulesOut) {
  EXPECT_THAT(message_of(changed("on_shadow", {true, false, false})), HasSubstr("on_shadow"));
  EXPECT_THAT(message_of(to_line(record()), planned_header()), HasSubstr("on_shadow: expected a list"));
  EXPECT_THAT(message_of(changed("on_shadow", {true}), planned_header()), HasSubstr("on_shadow: has another length"));
  EXPECT_THAT(message_of(changed("on_shadow", {true, true, false}), planned_header()),
              HasSubstr("on_shadow: is true of an expert that is not kept"));
}

std::string header_message(const std::string& line) {
  try {
    parse_audit_header(line, "a.jsonl: line 1");
  } catch (const InvalidFile& error) {
    return error.what();
  }
  return "accepted";
}

TEST(AuditLines, RefusesFilesThatAreNoAuditOrOfAnotherVersion) {
  EXPECT_THAT(header_message(""), HasSubstr("is not the start of an audit file"));
  EXPECT_THAT(header_message("{\"version\": 1}"), HasSubstr("is not the start of an audit file"));
  nlohmann::json line = nlohmann::json::parse(to_line(header()));
  line["skipper_audit"] = 2;
  EXPECT_THAT(header_message(line.dump()), HasSubstr("has version 2 but this build reads version 1"));
  line["skipper_audit"] = 1;
  line["placement"]["ranks"] = 2;
  EXPECT_THAT(header_message(line.dump()), HasSubstr("placement: nodes: expected one per rank"));
}

std::string message_with(const std::string& key, const nlohmann::json::json_pointer& place, const nlohmann::json& value) {
  nlohmann::json line = nlohmann::json::parse(to_line(planned_header()));
  line["placement"][key][place] = value;
  return header_message(line.dump());
}

TEST(AuditLines, RefusesOwnersAndShadowsThatCannotBe) {
  using Pointer = nlohmann::json::json_pointer;
  EXPECT_THAT(message_with("owners", Pointer("/2/5"), 3), HasSubstr("placement: owners: 3 is no rank of 3"));
  EXPECT_THAT(message_with("owners", Pointer("/2/5"), -1), HasSubstr("placement: owners: -1 is no rank"));
  EXPECT_THAT(message_with("owners", Pointer("/2/16"), 0), HasSubstr("owners: expected a list of 16 for each of 3 layers"));
  EXPECT_THAT(message_with("owners", Pointer("/2"), 0), HasSubstr("owners: expected a list of 16"));
  EXPECT_THAT(message_with("shadow_errors", Pointer("/3"), nlohmann::json::array()), HasSubstr("for each of 3 layers"));
  EXPECT_THAT(message_with("shadow_errors", Pointer("/0/3"), 1.5), HasSubstr("shadow_errors: 1.5 is no error"));
  EXPECT_THAT(message_with("shadow_errors", Pointer("/0/1"), 0.5),
              HasSubstr("rank 1 has a shadow of expert 1 of MoE layer 0, which it owns"));
  nlohmann::json line = nlohmann::json::parse(to_line(planned_header()));
  line["placement"]["rule"] = "by moon";
  EXPECT_THAT(header_message(line.dump()), HasSubstr("placement: rule: is unknown to this build"));
}

}  // namespace
}  // namespace skipper
