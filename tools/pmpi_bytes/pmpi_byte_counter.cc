// Counts the bytes a program hands to MPI, from outside: the independent witness for Skipper's own traffic counters.
//
//   mpirun -n 2 -x LD_PRELOAD=build/cpu-release/tests/comm/libpmpi_byte_counter.so -x PMPI_BYTES_OUT=bytes.json skipper ...
//
// At MPI_Finalize every rank writes $PMPI_BYTES_OUT.<rank>:
//
//   {"rank": 0, "communicators": {"skipper-data": {"MPI_Isend": {"calls": 3, "bytes": 4096}}, ...}}
//
// Communicators are told apart by name (MPI_Comm_set_name). Counted is what a rank sends to others: a message once; a broadcast
// at its root, once per receiver; an all-gather, once per receiver; what an MPI_Ialltoallv sends to its own rank, not at all.
// How MPI routes the bytes of a collective is its own affair. A program that ends without MPI_Finalize writes nothing.
#include <mpi.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

namespace {

struct Traffic {
  int64_t calls = 0;
  int64_t bytes = 0;
};

// By communicator name, then by MPI function. MPI is called by one thread only.
using TrafficByName = std::map<std::string, std::map<std::string, Traffic>>;

TrafficByName& all_traffic() {
  static TrafficByName traffic;
  return traffic;
}

std::string name_of(MPI_Comm comm) {
  char name[MPI_MAX_OBJECT_NAME];
  int length = 0;
  PMPI_Comm_get_name(comm, name, &length);
  return std::string(name, static_cast<size_t>(length));
}

int rank_in(MPI_Comm comm) {
  int rank = 0;
  PMPI_Comm_rank(comm, &rank);
  return rank;
}

int64_t size_of(MPI_Comm comm) {
  int size = 0;
  PMPI_Comm_size(comm, &size);
  return size;
}

int64_t bytes_of(int64_t count, MPI_Datatype type) {
  int size = 0;
  PMPI_Type_size(type, &size);
  return count * size;
}

void count(MPI_Comm comm, const char* function, int64_t bytes) {
  Traffic& traffic = all_traffic()[name_of(comm)][function];
  ++traffic.calls;
  traffic.bytes += bytes;
}

void write_report(FILE* file, int rank) {
  std::fprintf(file, "{\"rank\": %d, \"communicators\": {", rank);
  const char* comm_separator = "";
  for (const auto& [name, functions] : all_traffic()) {
    std::fprintf(file, "%s\"%s\": {", comm_separator, name.c_str());
    const char* separator = "";
    for (const auto& [function, traffic] : functions) {
      std::fprintf(file, "%s\"%s\": {\"calls\": %lld, \"bytes\": %lld}", separator, function.c_str(),
                   static_cast<long long>(traffic.calls), static_cast<long long>(traffic.bytes));
      separator = ", ";
    }
    std::fprintf(file, "}");
    comm_separator = ", ";
  }
  std::fprintf(file, "}}\n");
}

}  // namespace

extern "C" {

int MPI_Send(const void* data, int num, MPI_Datatype type, int to, int tag, MPI_Comm comm) {
  count(comm, "MPI_Send", bytes_of(num, type));
  return PMPI_Send(data, num, type, to, tag, comm);
}

int MPI_Isend(const void* data, int num, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request* request) {
  count(comm, "MPI_Isend", bytes_of(num, type));
  return PMPI_Isend(data, num, type, to, tag, comm, request);
}

int MPI_Ibarrier(MPI_Comm comm, MPI_Request* request) {
  count(comm, "MPI_Ibarrier", 0);
  return PMPI_Ibarrier(comm, request);
}

int MPI_Ibcast(void* data, int num, MPI_Datatype type, int root, MPI_Comm comm, MPI_Request* request) {
  const bool sends = rank_in(comm) == root;
  count(comm, "MPI_Ibcast", sends ? bytes_of(num, type) * (size_of(comm) - 1) : 0);
  return PMPI_Ibcast(data, num, type, root, comm, request);
}

int MPI_Iallgather(const void* send, int send_num, MPI_Datatype send_type, void* recv, int recv_num,
                   MPI_Datatype recv_type, MPI_Comm comm, MPI_Request* request) {
  count(comm, "MPI_Iallgather", bytes_of(send_num, send_type) * (size_of(comm) - 1));
  return PMPI_Iallgather(send, send_num, send_type, recv, recv_num, recv_type, comm, request);
}

int MPI_Ialltoallv(const void* send, const int send_nums[], const int send_offsets[], MPI_Datatype send_type, void* recv,
                   const int recv_nums[], const int recv_offsets[], MPI_Datatype recv_type, MPI_Comm comm,
                   MPI_Request* request) {
  int64_t bytes = -bytes_of(send_nums[rank_in(comm)], send_type);
  for (int64_t rank = 0; rank < size_of(comm); ++rank) bytes += bytes_of(send_nums[rank], send_type);
  count(comm, "MPI_Ialltoallv", bytes);
  return PMPI_Ialltoallv(send, send_nums, send_offsets, send_type, recv, recv_nums, recv_offsets, recv_type, comm,
                         request);
}

int MPI_Finalize() {
  const int rank = rank_in(MPI_COMM_WORLD);
  if (const char* path = std::getenv("PMPI_BYTES_OUT")) {
    const std::string report = std::string(path) + "." + std::to_string(rank);
    if (FILE* file = std::fopen(report.c_str(), "w")) {
      write_report(file, rank);
      std::fclose(file);
    } else {
      std::fprintf(stderr, "pmpi_byte_counter: cannot write %s\n", report.c_str());
    }
  }
  return PMPI_Finalize();
}

}  // extern "C"
