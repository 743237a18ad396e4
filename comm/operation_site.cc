#include "comm/operation_site.h"

namespace skipper {

std::string describe(const OperationSite& site) {
  std::string text = "rank " + std::to_string(site.rank) + ": ";
  const char* separator = "";
  const auto append = [&](const std::string& part) {
    text += separator + part;
    separator = ", ";
  };
  if (site.context.step >= 0) append("step " + std::to_string(site.context.step));
  if (site.context.layer >= 0) append("layer " + std::to_string(site.context.layer));
  if (*site.context.phase != '\0') append(site.context.phase);
  if (*separator != '\0') text += ": ";
  return text + site.operation;
}

std::string deadline_message(const OperationSite& site, const OperationLimit& limit, std::span<const int> silent_ranks) {
  std::string text = describe(site) + " did not complete within " + std::to_string(limit.time.count()) + " ms";
  const char* separator = ", waiting for rank ";
  for (const int rank : silent_ranks) {
    text += separator + std::to_string(rank);
    separator = ", ";
  }
  return text + "; " + limit.advice;
}

std::string abort_message(const OperationSite& site, const std::string& reason) {
  return describe(site) + ": the group was aborted: " + reason;
}

}  // namespace skipper
