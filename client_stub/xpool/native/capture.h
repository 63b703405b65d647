// Records that go into a graph in place of the log, as in protocol/SPEC.md section 5, "Graphs".
//
// A CUDA graph is captured from a stream, a compiled region from a thread. Meanwhile calls are encoded as always, but
// a storage's number is the graph's own (`storage_id` asks the capture), and the records stay here. One mutex guards
// all captures; it is taken before a log's.
#pragma once
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "capturing.h"
#include "inference.h"

namespace xpool {

constexpr size_t kMaxGraphRecords = 65'536, kMaxGraphStorages = 65'536, kMaxGraphs = 4'096;
constexpr size_t kMaxGraphBytes = 4 << 20, kMaxGraphsBytes = 64 << 20;

// A storage as a graph numbers it.
struct Slot {
  StorageName *name = nullptr;  // null once its tensors are gone
  uint64_t charged = 0;
  bool is_parameter = false;  // it was there before
  bool is_made = false;       // a record of the graph makes it
  size_t allocate_at = 0, allocate_nbytes = 0;  // its Allocate record among the others, if that is what makes it
};

// A copy between pinned host memory and a device tensor that each replay makes outside the graph: before it runs for
// what goes to the device, after it for what comes from there.
struct HostCopy {
  at::Tensor remote, host;
  bool is_upload;
};

class Capture {
 public:
  enum class Kind { kGraph, kRegion };
  Capture(int device, Kind kind) : device(device), kind(kind) {}
  ~Capture();

  const int device;
  const Kind kind;
  // Something was asked for that a graph can't hold: the capture has failed.
  bool is_invalid = false;

  // Each of these takes the captures' mutex.
  uint64_t number(StorageName *name);
  void note_birth(StorageName *name);
  void append_allocate(StorageName *name, uint64_t nbytes);
  void note_made(StorageName *name);
  void append_call(WireOperation &operation, const Bytes &head, const Bytes &tail);
  void append_write(uint64_t number, uint64_t offset, const char *data, size_t nbytes);
  void keep(const at::Generator &generator);
  void copy_in_replays(const HostCopy &copy);

  // The caller holds the captures' mutex.
  void note_end(StorageName *name);
  void cut(const std::vector<std::pair<size_t, size_t>> &spots);

  std::vector<Slot> slots;
  std::string records;
  size_t record_count = 0;
  std::vector<at::Generator> generators;
  std::vector<HostCopy> host_copies;
  std::unordered_map<StorageName *, uint32_t> numbers;
  std::unordered_set<StorageName *> born;  // and not yet gone
  uint64_t charged_now = 0, charged_most = 0;  // of what was born

 private:
  uint32_t number_locked(StorageName *name);
  void append_locked(const Bytes &record);
};

// The plan of a call that the server must be asked for, while that call is captured and not run.
std::shared_ptr<const Plan> learn_apart(Operation &operation, Arguments arguments);

// The captures of streams, and this thread's region.
void begin_capture(int device, int64_t stream);
std::shared_ptr<Capture> take_capture(int device, int64_t stream);
Capture *region_capture();
void set_region_capture(std::unique_ptr<Capture> capture);
std::unique_ptr<Capture> take_region_capture();

// A graph that the server has.
struct SentGraph {
  SentGraph(int device, const Capture &capture, const std::vector<uint32_t> &parameters,
            const std::vector<uint32_t> &results);
  ~SentGraph();
  SentGraph(const SentGraph &) = delete;
  SentGraph &operator=(const SentGraph &) = delete;
  // Appends a run. Throws if the slice has no room for what lives within it.
  void run(const std::vector<uint64_t> &parameters, const std::vector<uint64_t> &results);

  const int device;
  uint64_t id;
  uint64_t scratch;  // charged in a run and not after it
  std::vector<StorageName *> kept;
  std::vector<at::Generator> generators;

 private:
  size_t nbytes_;
};

// The operations of namespace xpool by which Python begins, ends and runs them.
void register_graphs();
void register_regions();

}  // namespace xpool
