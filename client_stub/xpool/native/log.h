// A session's log on its way out: records in order, cut into batches that the link's I/O thread takes.
//
// Every record is appended under one mutex, which gives the log its order. Nothing here waits for the network: when
// more is queued than the window allows, `wait_for_room` (Python, releases the GIL) is called before the next record.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "bytes.h"
#include "record_kinds.h"

namespace xpool {

class Replay;
struct ReplayCounters;

constexpr size_t kBatchBytes = 64 << 10;
constexpr size_t kBatchCost = 256 << 10;
constexpr size_t kInlineBytes = 64 << 10;
constexpr size_t kChunkBytes = 1 << 20;
constexpr size_t kTransferBytes = 16 << 20;
constexpr size_t kBatchPayloads = 128;  // with one transfer more it stays below the 256 frames of a message
constexpr uint64_t kGranule = 512;
constexpr uint64_t kReservedIds = 65536;
constexpr int kMaxDevices = 64;  // as many as the registry grants to one job

// What the C API hands out; `payloads` and `sizes` live until the batch is released.
struct Batch {
  std::string records;
  uint32_t record_count = 0;
  std::vector<char *> payloads;  // malloc'd
  std::vector<size_t> sizes;
  size_t payload_bytes = 0;
  // Bytes that its records have, payloads included. More than it holds itself, if plans stand for records: a program
  // must not run ahead further because its records travel in few bytes.
  size_t cost = 0;
  ~Batch();
};

// An operation as the sessions know it: its number in a log, plus 1, is given at its first use there, under the log's
// mutex. 0 means none yet.
struct WireOperation {
  std::string name;
  std::vector<std::string> argument_names;
  std::array<int32_t, kMaxDevices> numbers{};
};

// Whether a record wakes the link. kNo: the caller waits for its answer next, and sees to it that it is sent.
enum class Ring : bool { kNo, kYes };

// The operation numbers of records around others.
struct Around {
  uint64_t before = 0, after = 0;
};

class Log {
 public:
  // One for each device, never destroyed: tensors may outlive every other static.
  static Log &of(int device);

  uint64_t next_storage(uint64_t count = 1) { return storages_.fetch_add(count); }
  uint64_t next_request() { return requests_.fetch_add(1); }
  uint64_t next_generator() { return generators_.fetch_add(1); }

  // Appends one record that names no operation; returns its operation number.
  uint64_t append(const Bytes &record, Ring ring = Ring::kYes);
  // Appends `head` + operation number + `tail`, after defining the operation if this is its first use.
  uint64_t append_call(WireOperation &operation, const Bytes &head, const Bytes &tail, Ring ring = Ring::kYes);
  // The operation's number, defined if this is its first use.
  uint64_t define(WireOperation &operation);
  // Appends one record that names a peer, after defining the peer with `define` if this is its first use.
  uint64_t append_for_peer(int peer, const Bytes &define, const Bytes &record);
  // Appends a READ record; returns the request that will be answered.
  uint64_t append_read(uint64_t storage, uint64_t offset, uint64_t nbytes);
  // Appends WRITE records for any number of bytes, copied from `data`; with one record before and one after them, if
  // any, which travel in the same message where there is room. Returns these two's operation numbers, 0 of none.
  Around append_write(uint64_t storage, uint64_t offset, const char *data, size_t nbytes, std::string_view before = {},
                      std::string_view after = {});

  // The oldest complete or begun batch, or null. The caller owns it.
  Batch *take();
  // How many records there are, those included that this side makes by itself.
  uint64_t position();
  size_t queued_bytes() const { return queued_bytes_.load(std::memory_order_relaxed); }
  // From now on the wake descriptor is written when the queue grows to so many bytes. Returns how many there are.
  size_t ring_at(size_t nbytes);
  void set_wake_fd(int fd) { wake_fd_ = fd; }

  // From now on what repeats itself is sent as runs of plans.
  void use_plans(bool with_early_answers);
  // Requests whose answers, if they come, are for nobody.
  std::vector<uint64_t> take_abandoned();
  ReplayCounters replay_counters();

  // After this no log records anything any more: the interpreter ends, or this is a forked child.
  static void close_all() { closed_ = true; }
  static bool closed() { return closed_; }

 private:
  explicit Log(int device) : device_(device) {}
  uint64_t append_locked(std::string_view record, Ring ring = Ring::kYes);
  uint64_t add_locked(std::string_view record);
  uint64_t define_locked(WireOperation &operation);
  void wake();
  void note_queued(size_t nbytes, Ring ring);
  Batch &open_batch(size_t payload_bytes);

  const int device_;
  std::mutex mutex_;
  std::deque<Batch *> batches_;
  Replay *replay_ = nullptr;  // as the log, never destroyed
  std::string scratch_;
  uint64_t record_count_ = 0;
  int32_t next_operation_ = 0;
  std::array<bool, kMaxDevices> defined_peers_{};
  std::atomic<size_t> queued_bytes_{0};
  size_t ring_at_ = 1;
  std::atomic<uint64_t> storages_{1}, requests_{1}, generators_{1};
  static std::atomic<bool> closed_;
  int wake_fd_ = -1;
};

}  // namespace xpool
