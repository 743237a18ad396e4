#include "machine/machine_profile.h"

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/json_fields.h"
#include "kernels/weight_format.h"

namespace skipper {
namespace {

using ordered = nlohmann::ordered_json;

constexpr double kLeastRate = 1e-12;  // seconds of an exchange are among them
constexpr double kMostRate = 1e18;

MeasuredRate read_rate(const JsonFields& fields) {
  MeasuredRate rate;
  rate.median = fields.required_number("median", kLeastRate, kMostRate);
  rate.lowest = fields.required_number("lowest", kLeastRate, rate.median);
  rate.highest = fields.required_number("highest", rate.median, kMostRate);
  rate.num_samples = static_cast<int>(fields.required_int("samples", 1, 1 << 20));
  fields.reject_unknown_keys();
  return rate;
}

std::optional<MeasuredRate> read_optional_rate(const JsonFields& fields, const char* key) {
  const std::optional<JsonFields> rate = fields.optional_object(key);
  return rate ? std::optional(read_rate(*rate)) : std::nullopt;
}

std::optional<LinkRates> read_link(const JsonFields& links, const char* key) {
  const std::optional<JsonFields> link = links.optional_object(key);
  if (!link) return std::nullopt;
  const LinkRates rates{read_rate(link->required_object("latency")), read_rate(link->required_object("bandwidth"))};
  link->reject_unknown_keys();
  return rates;
}

std::map<std::string, ProductRates> read_products(const JsonFields& file, const std::string& where) {
  std::map<std::string, ProductRates> products;
  const JsonFields formats = file.required_object("products");
  for (const auto& [name, unread] : file.raw("products").items()) {
    parse_weight_format(name, where + ": products");
    const JsonFields product = formats.required_object(name);
    products[name] = {read_rate(product.required_object("row")), read_rate(product.required_object("tile"))};
    product.reject_unknown_keys();
  }
  return products;
}

HostIdentity read_host(const JsonFields& fields) {
  HostIdentity host;
  host.name = fields.required_string("name");
  host.processor = fields.required_string("processor");
  host.num_cores = static_cast<int>(fields.required_int("cores", 1, 1 << 20));
  host.gpu = fields.optional_string("gpu", "");
  fields.reject_unknown_keys();
  return host;
}

ordered to_object(const MeasuredRate& rate) {
  return {{"median", rate.median}, {"lowest", rate.lowest}, {"highest", rate.highest}, {"samples", rate.num_samples}};
}

ordered to_object(const LinkRates& link) {
  return {{"latency", to_object(link.latency)}, {"bandwidth", to_object(link.bandwidth)}};
}

template <typename Value>
ordered to_object(const std::optional<Value>& value) {
  return value ? to_object(*value) : ordered(nullptr);
}

// How a rate is written for people: "12.3 GB/s".
struct Unit {
  double scale;
  const char* name;
};
constexpr Unit kBytes{1e9, "GB/s"}, kOperations{1e9, "Gop/s"}, kMicroseconds{1e-6, "us"};

std::string row_of(const std::string& what, const std::optional<MeasuredRate>& rate, const Unit& unit) {
  std::array<char, 160> text{};
  if (rate) {
    std::snprintf(text.data(), text.size(), "%-28s %10.2f %-5s  %.2f to %.2f, %d samples\n", what.c_str(),
                  rate->median / unit.scale, unit.name, rate->lowest / unit.scale, rate->highest / unit.scale, rate->num_samples);
  } else {
    std::snprintf(text.data(), text.size(), "%-28s %10s\n", what.c_str(), "n/a");
  }
  return text.data();
}

std::string link_rows(const std::string& what, const std::optional<LinkRates>& link) {
  const auto part = [&](MeasuredRate LinkRates::*rate) { return link ? std::optional((*link).*rate) : std::nullopt; };
  return row_of(what + ", latency", part(&LinkRates::latency), kMicroseconds) +
         row_of(what + ", bandwidth", part(&LinkRates::bandwidth), kBytes);
}

}  // namespace

MachineProfile load_machine_profile(const std::filesystem::path& path) {
  const nlohmann::json document = read_json_file(path);
  const JsonFields file(document, path.string());
  file.required_int("version", 1, 1);
  MachineProfile machine;
  machine.host = read_host(file.required_object("host"));
  machine.ranks_per_host = static_cast<int>(file.required_int("ranks_per_host", 1, 1 << 20));
  machine.threads_per_rank = static_cast<int>(file.required_int("threads_per_rank", 1, 1 << 20));
  machine.memory_read = read_rate(file.required_object("memory_read"));
  machine.disk_read = read_optional_rate(file, "disk_read");
  machine.bus = read_optional_rate(file, "bus");
  machine.device_memory = read_optional_rate(file, "device_memory");
  const JsonFields links = file.required_object("links");
  machine.node_link = read_link(links, "node");
  machine.network_link = read_link(links, "network");
  links.reject_unknown_keys();
  machine.products = read_products(file, path.string());
  file.reject_unknown_keys();
  return machine;
}

std::string to_json(const MachineProfile& machine) {
  const HostIdentity& host = machine.host;
  ordered products = ordered::object();
  for (const auto& [format, rates] : machine.products) {
    products[format] = {{"row", to_object(rates.row)}, {"tile", to_object(rates.tile)}};
  }
  const ordered document = {
      {"version", 1},
      {"host",
       {{"name", host.name}, {"processor", host.processor}, {"cores", host.num_cores},
        {"gpu", host.gpu.empty() ? ordered(nullptr) : ordered(host.gpu)}}},
      {"ranks_per_host", machine.ranks_per_host},
      {"threads_per_rank", machine.threads_per_rank},
      {"memory_read", to_object(machine.memory_read)},
      {"disk_read", to_object(machine.disk_read)},
      {"bus", to_object(machine.bus)},
      {"device_memory", to_object(machine.device_memory)},
      {"links", {{"node", to_object(machine.node_link)}, {"network", to_object(machine.network_link)}}},
      {"products", products}};
  return document.dump(1) + "\n";
}

std::string machine_report(const MachineProfile& machine) {
  const HostIdentity& host = machine.host;
  std::string report = host.name + ": " + host.processor + ", " + std::to_string(host.num_cores) + " cores, GPU " +
                       (host.gpu.empty() ? "none" : host.gpu) + "; of each of " + std::to_string(machine.ranks_per_host) +
                       " rank(s) of a host with " + std::to_string(machine.threads_per_rank) + " thread(s):\n";
  report += row_of("memory, read", machine.memory_read, kBytes);
  report += row_of("disk, read", machine.disk_read, kBytes);
  report += row_of("bus to the GPU", machine.bus, kBytes);
  report += row_of("memory of the GPU", machine.device_memory, kBytes);
  report += link_rows("ranks of a node", machine.node_link) + link_rows("ranks of two nodes", machine.network_link);
  for (const auto& [format, rates] : machine.products) {
    report += row_of(format + ", one row", rates.row, kBytes) + row_of(format + ", many rows", rates.tile, kOperations);
  }
  return report;
}

}  // namespace skipper
