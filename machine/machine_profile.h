// What a machine was measured to do, and machine.json: what predictions of time are made from.
//
// machine.json, version 1 (`skipper machine` writes it). A rate is {"median", "lowest", "highest", "samples"}, of one rank while
// all ranks of its host are at it; what the machine has not is null:
//
//   {"version": 1, "host": {"name": "node0", "processor": "... (avx512_bf16)", "cores": 16, "gpu": null},
//    "ranks_per_host": 2, "threads_per_rank": 8,
//    "memory_read": {rate, bytes/s}, "disk_read": {rate, bytes/s}, "bus": {rate, bytes/s}, "device_memory": {rate, bytes/s},
//    "links": {"node": {"latency": {rate, seconds of an exchange of a byte}, "bandwidth": {rate, bytes/s}}, "network": null},
//    "products": {"bf16": {"row": {rate, bytes of weights/s}, "tile": {rate, operations/s}}, "int8-g64": {...}, ...}}
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "machine/host_identity.h"
#include "machine/measured_rate.h"

namespace skipper {

struct LinkRates {
  MeasuredRate latency;    // seconds
  MeasuredRate bandwidth;  // bytes a second in each direction

  friend bool operator==(const LinkRates&, const LinkRates&) = default;
};

// Of the CPU kernels.
struct ProductRates {
  MeasuredRate row;   // bytes of weights a second, one row
  MeasuredRate tile;  // operations a second, many rows

  friend bool operator==(const ProductRates&, const ProductRates&) = default;
};

struct MachineProfile {
  HostIdentity host;
  int ranks_per_host = 1;
  int threads_per_rank = 1;
  MeasuredRate memory_read;
  std::optional<MeasuredRate> disk_read;
  std::optional<MeasuredRate> bus;
  std::optional<MeasuredRate> device_memory;
  std::optional<LinkRates> node_link;
  std::optional<LinkRates> network_link;
  std::map<std::string, ProductRates> products;  // by name of the format

  friend bool operator==(const MachineProfile&, const MachineProfile&) = default;
};

// Throws InvalidFile naming file and key.
MachineProfile load_machine_profile(const std::filesystem::path& path);

std::string to_json(const MachineProfile& machine);

// A line for each rate with its spread; "n/a" for what the machine has not.
std::string machine_report(const MachineProfile& machine);

}  // namespace skipper
