#include "bench/benchmark_report.h"

#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace skipper {

void publish(const std::string& table, const nlohmann::json& figures, const std::string& json_file) {
  std::cout << table << std::flush;
  if (json_file.empty()) return;
  std::ofstream file(json_file);
  file << figures.dump(1) << "\n";
  if (!file.flush()) throw InvalidFile("flag --json: " + json_file + " cannot be written; check folder and space");
}

}  // namespace skipper
