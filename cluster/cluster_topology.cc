#include "cluster/cluster_topology.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace skipper {

namespace {

// POSIX limits host names to 255 bytes; the last byte of a record stays 0.
constexpr size_t kHostRecordBytes = 256;

}  // namespace

ClusterTopology ClusterTopology::discover(Communicator& control, const std::string& host_name, Stream& stream) {
  if (host_name.empty() || host_name.size() >= kHostRecordBytes) {
    throw CommError("rank " + std::to_string(control.rank()) + ": host name '" + host_name + "' has " +
                    std::to_string(host_name.size()) + " bytes; set one of 1 to 255 bytes");
  }
  std::string mine = host_name;
  mine.resize(kHostRecordBytes, '\0');
  std::string all(kHostRecordBytes * static_cast<size_t>(control.size()), '\0');
  control.all_gather({reinterpret_cast<const std::byte*>(mine.data()), mine.size()},
                     {reinterpret_cast<std::byte*>(all.data()), all.size()}, stream);

  std::map<std::string, int> node_of_host;
  std::vector<int> node_of_rank;
  for (size_t at = 0; at < all.size(); at += kHostRecordBytes) {
    const std::string host(all, at, kHostRecordBytes);
    const auto next_node = static_cast<int>(node_of_host.size());
    node_of_rank.push_back(node_of_host.emplace(host, next_node).first->second);
  }
  return ClusterTopology(std::move(node_of_rank));
}

ClusterTopology::ClusterTopology(std::vector<int> node_of_rank) : node_of_rank_(std::move(node_of_rank)) {
  for (const int node : node_of_rank_) num_nodes_ = std::max(num_nodes_, node + 1);
}

Hop ClusterTopology::hop(int from, int to) const {
  if (from == to) return Hop::kLocal;
  return node_of(from) == node_of(to) ? Hop::kNode : Hop::kNetwork;
}

}  // namespace skipper
