// What makes a device "cuda" on a machine without one: guard, hooks, generators, pinned memory, and an allocator whose
// addresses are names. Shared by all files of this folder.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/GeneratorImpl.h>
#include <c10/core/Storage.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bytes.h"
#include "log.h"

namespace xpool {

constexpr auto kRemote = c10::DeviceType::CUDA;
constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::CUDA);

inline c10::Device remote_device(int index) { return {kRemote, static_cast<c10::DeviceIndex>(index)}; }

// Each device of the job is a session of its own, with a log, a quota and a worker: nothing is shared between them.
int device_count();
void set_device_count(int count);
int current_device();  // of this thread
int64_t current_stream(int device);
// The index that a device without one means; throws for one that does not exist.
int index_of(std::optional<c10::Device> device);

// ---- storages: the DataPtr's context names the storage on the server

class Capture;

struct StorageName {
  int device;
  uint64_t id;  // in that device's session
  uint64_t charged;  // bytes counted against the quota, by the server's rule
  std::atomic<bool> is_known;  // a record has named it, so its end must be told
  uint64_t nbytes;
  std::atomic<int> keepers{1};                  // its tensors, and each graph that needs it
  std::atomic<Capture *> born{nullptr};         // made by what is being captured: the server knows nothing of it
  std::shared_ptr<std::atomic<bool>> is_gone;   // for a graph that would make it anew: whether nobody needs it
};

// One keeper less; without any the storage ends.
void drop_storage(StorageName *name);

// Emits an ALLOCATE record, or none: then a call's outputs define the storage.
c10::Allocator *storage_allocator(int device);
c10::Allocator *result_allocator(int device);
// As storage_allocator, on whichever device is this thread's current one when it allocates.
c10::Allocator *current_allocator();
// A storage that the server has made under this id already.
c10::DataPtr adopt_storage(int device, uint64_t id, uint64_t nbytes);
// The server has made this storage larger: an out= argument that it resized.
void recharge(const c10::Storage &storage, uint64_t nbytes);
// The result is named by a record by now: its end will be told.
void mark_known(const c10::Storage &storage);
// The storage's id on the server; an empty storage that never saw the allocator is allocated now.
uint64_t storage_id(const c10::Storage &storage);

struct MemoryCounters {
  uint64_t allocated, peak, quota, allocation_count;
  uint64_t allocated_total, released_count, peak_count, refused_count;
};
MemoryCounters memory_counters(int device);
void set_memory_quota(int device, uint64_t nbytes);
void reset_peak_memory(int device);
// What a run of a graph needs while it runs: counts in the peak, and throws if there is no room.
void charge_for_a_moment(int device, uint64_t nbytes);

// ---- generators

struct RemoteGenerator final : c10::GeneratorImpl {
  RemoteGenerator(int device, uint64_t id);
  ~RemoteGenerator() override;
  void set_current_seed(uint64_t value) override;
  void set_offset(uint64_t value) override;
  uint64_t get_offset() const override;
  uint64_t current_seed() const override { return seed_; }
  uint64_t seed() override;
  void set_state(const c10::TensorImpl &state) override;
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override;
  RemoteGenerator *clone_impl() const override;

  const uint64_t id;  // in its device's session

 private:
  Log &log() const { return Log::of(device().index()); }
  uint64_t seed_ = c10::default_rng_seed_val;
};

// ---- asking the server (the link lives in Python)

// An answer's memory belongs to the caller's thread until it asks again.
struct Answer {
  int32_t status = 0;  // 0 answered, 1 the operation failed, 2 the session is over, 3 interrupted
  int32_t signal = 0;  // with 3: the signal to deliver again once Python runs on
  const char *value = nullptr;
  uint64_t value_nbytes = 0;
  const char *const *payloads = nullptr;
  const uint64_t *payload_nbytes = nullptr;
  uint64_t payload_count = 0;
  const char *exception = nullptr;  // a name of messages.EXCEPTIONS
  const char *text = nullptr;
};

struct Callbacks {
  void (*request)(int32_t device, uint64_t request, Answer *answer) = nullptr;
  void (*wait_for_room)(int32_t device) = nullptr;
  void (*trace)(int32_t device, uint64_t operation) = nullptr;  // null unless XPOOL_TRACE is set
  void (*waited)(const char *what, uint64_t ns, uint64_t nbytes) = nullptr;  // null unless waits are watched
  void (*open_lane)(int32_t device) = nullptr;  // answers with xpool_lane, or not at all
  bool (*digest)(uint64_t data, uint64_t nbytes, uint64_t to) = nullptr;  // 32 bytes that name a content
};
extern Callbacks callbacks;

// Tells how long a wait was, if somebody wants to know.
class Watch {
 public:
  explicit Watch(const char *what) : what_(callbacks.waited ? what : nullptr) {
    if (what_)
      began_ = std::chrono::steady_clock::now();
  }
  ~Watch() {
    if (what_)
      callbacks.waited(what_, (std::chrono::steady_clock::now() - began_).count(), nbytes);
  }
  Watch(const Watch &) = delete;
  Watch &operator=(const Watch &) = delete;
  uint64_t nbytes = 0;

 private:
  const char *what_;
  std::chrono::steady_clock::time_point began_;
};

// Waits for the answer and throws what it holds if it is an error. `what` says for people what was waited for.
Answer await(int device, uint64_t request, const char *what);
// To be called before each record that makes a device's queue longer, without any lock held.
void leave_room(int device);
// A forked child has no session: nothing may be recorded there.
bool is_forked();
void note_fork();
// Throws if this process can't use any device: a forked child, or the interpreter's end.
void check_process();
// The same, and if that device's session is over.
void check_usable(int device);

void read_storage(const c10::Storage &storage, uint64_t offset, char *to, uint64_t nbytes);

}  // namespace xpool
