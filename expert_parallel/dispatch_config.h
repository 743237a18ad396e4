// Formats in which hidden rows travel between ranks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "expert_parallel/payload_format.h"
#include "tensor/dtype.h"

namespace skipper {

// Whether rows and sums travel to other ranks at all.
enum class PayloadTravel : uint8_t {
  kOn,
  // For measuring what else travels: counts, pair lists and all control messages go as ever, rows and sums do not, and zeros take
  // their place. Results mean nothing.
  kOff,
};

// Where the outputs of a token's experts are added up.
enum class SumPlace : uint8_t {
  // At their ranks: a row goes once to each rank of the token's experts and one partial sum comes back from there.
  kDestination,
  // At the token's rank: a row for each expert goes and comes back, and all are added in the router's order, whoever owns them.
  // The same bits over any number of ranks, for up to top_k times the rows.
  kSource,
};

std::string_view name_of(PayloadTravel travel);  // "on", "off"
// Throws InvalidFile naming `where` and the text.
PayloadTravel parse_payload_travel(const std::string& text, const std::string& where);

// Rows that stay on their rank are rounded through the same formats, so that results do not depend on who owns what.
struct DispatchConfig {
  PayloadFormat payload_format = PayloadFormat::kBF16;  // "payload_dtype": hidden rows on their way to the experts
  DType combine_dtype = DType::kBF16;                   // partial sums on their way back: bf16 or f32
  PayloadTravel payload = PayloadTravel::kOn;           // "payload"; only `eval` takes "off"

  SumPlace sum_place = SumPlace::kDestination;          // not of the file; on CPUs alone

  bool rows_travel() const { return payload == PayloadTravel::kOn; }
  // Throws InvalidFile naming the key ("dispatch.combine_dtype").
  void validate() const;
};

}  // namespace skipper
