// The C interface that Python loads with ctypes. Nothing that Python calls throws: an exception becomes its text.
#include <cstring>

#include "addresses.h"
#include "ahead.h"
#include "cuda_build.h"
#include "dispatch.h"
#include "ending.h"
#include "kernels.h"
#include "lane.h"
#include "peers.h"
#include "remote.h"
#include "replay.h"

namespace xpool {
void expect_default_generator();
void end_session(int device, const char *text);
void set_current_device(int index);
int64_t current_stream(int device);
void set_current_stream(int device, int64_t id);
void export_storage(c10::StorageImpl *storage);
void import_tensor(c10::TensorImpl *tensor);
extern int32_t (*on_out_of_memory)(int32_t device, uint64_t nbytes, uint32_t attempt);
}  // namespace xpool

using namespace xpool;

#define XPOOL_API extern "C" __attribute__((visibility("default")))

// Bumped with every change of this interface; Python refuses another one.
XPOOL_API int32_t xpool_abi() { return 12; }

// After `import torch`: takes the CUDA key.
XPOOL_API const char *xpool_register(int32_t is_cuda_build) {
  static std::string error;
  try {
    const c10::WarningUtils::WarningHandlerGuard quietly(is_cuda_build ? no_warnings()
                                                                       : c10::WarningUtils::get_warning_handler());
    if (is_cuda_build)
      take_over_kernels();
    register_kernels();
    if (is_cuda_build)
      settle_kernels();
    return nullptr;
  } catch (const std::exception &problem) {
    error = problem.what();
    return error.c_str();
  }
}

// Before an extension is loaded into a CUDA build: what is there is not the extension's.
XPOOL_API const char *xpool_settle() {
  static std::string error;
  try {
    settle_kernels();
    return nullptr;
  } catch (const std::exception &problem) {
    error = problem.what();
    return error.c_str();
  }
}

// After an extension has been loaded into a CUDA build: its kernels for the device would run here.
XPOOL_API const char *xpool_take_over() {
  static std::string error;
  try {
    take_over_kernels();
    return nullptr;
  } catch (const std::exception &problem) {
    error = problem.what();
    return error.c_str();
  }
}

// For torch's own CUDA allocator, which some of torch asks directly: its storages get names too. Both throw.
XPOOL_API void *xpool_cuda_malloc(ssize_t nbytes, int device, void *) { return allocate_address(device, nbytes); }
XPOOL_API void xpool_cuda_free(void *address, ssize_t, int, void *) { free_address(address); }

// How Python answers; before the first xpool_connect.
XPOOL_API void xpool_set_callbacks(void (*request)(int32_t, uint64_t, Answer *), void (*wait_for_room)(int32_t),
                                   void (*trace)(int32_t, uint64_t)) {
  callbacks = {request, wait_for_room, trace};
}

// How a device's lane is opened: `open` calls xpool_lane with a stream, or does nothing where there is none.
// `digest` writes the 32 bytes that name a content: of memory, its length, to memory; false if it can't.
XPOOL_API void xpool_set_lane_opener(void (*open)(int32_t), bool (*digest)(uint64_t, uint64_t, uint64_t)) {
  callbacks.open_lane = open;
  callbacks.digest = digest;
}
// What the server has already, as it said; before xpool_lane.
XPOOL_API void xpool_set_known(int32_t device, const char *contents, uint64_t nbytes) {
  Lane::of(device).set_known(contents, nbytes);
}
XPOOL_API void xpool_lane_counters(int32_t device, Lane::Counters *counters) {
  *counters = Lane::of(device).counters();
}
// `memory` and `freed`: what is shared with the server, or -1. All descriptors belong to the lane from now on.
XPOOL_API void xpool_lane(int32_t device, int32_t fd, int32_t memory, int32_t freed) {
  Lane::of(device).set_stream(fd, memory, freed);
}

// The lane of `xpool_lane` leads over the network, where it pays to send batches before they are asked for.
XPOOL_API void xpool_enable_ahead(int32_t device) { Ahead::of(device).enable(); }
// `tensor`: a c10::TensorImpl, kept alive by the caller.
XPOOL_API void xpool_send_ahead(int32_t device, c10::TensorImpl *tensor) {
  Ahead::of(device).send(at::Tensor(c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim_copy(tensor)));
}
XPOOL_API void xpool_ahead_counters(int32_t device, Ahead::Counters *counters) {
  *counters = Ahead::of(device).counters();
}

// From now on every wait is told: what for, nanoseconds, bytes that came back. Before the program's threads start.
XPOOL_API void xpool_watch_waits(void (*waited)(const char *, uint64_t, uint64_t)) { callbacks.waited = waited; }

// What repeats itself in a device's log is sent as runs of plans; the link must be a pump.
XPOOL_API void xpool_use_plans(int32_t device, int32_t with_early_answers) {
  Log::of(device).use_plans(with_early_answers != 0);
}
XPOOL_API void xpool_replay_counters(int32_t device, ReplayCounters *counters) {
  *counters = Log::of(device).replay_counters();
}

XPOOL_API void xpool_set_device_count(int32_t count) { set_device_count(count); }

// The slice of a device has another size.
XPOOL_API void xpool_set_quota(int32_t device, uint64_t nbytes) { set_memory_quota(device, nbytes); }
// Asked before memory is called out: whether to look for room once more. May take its time.
XPOOL_API void xpool_wait_for_room(int32_t (*wait)(int32_t device, uint64_t nbytes, uint32_t attempt)) { on_out_of_memory = wait; }

// A device's session is open.
XPOOL_API void xpool_connect(int32_t device, int32_t wake_fd, uint64_t quota, int32_t server_is_cpu) {
  set_memory_quota(device, quota);
  set_server_is_cpu(device, server_is_cpu != 0);
  Log::of(device).set_wake_fd(wake_fd);
}

// How other workers of the job reach a device's worker.
XPOOL_API void xpool_set_peer(int32_t device, const char *address, const char *key, const char *name) {
  set_peer(device, address, key, name);
}

// What a device's server says of itself when the session opens; before the first operation.
XPOOL_API void xpool_set_server_text(int32_t device, const char *text) { set_server_text(device, text); }
XPOOL_API void xpool_set_lacking(int32_t device, const char *what) { set_lacking(device, what); }
// A server has contradicted what was predicted of an operation's results.
XPOOL_API void xpool_learn(const char *operation) { learn(operation); }

// A device's session is over: from now on every operation there fails with this text.
XPOOL_API void xpool_end(int32_t device, const char *text) { end_session(device, text); }
// The calling thread ends the interpreter: the others wait at their next remote operation.
XPOOL_API void xpool_begin_ending() { begin_ending(); }
XPOOL_API void xpool_close() {
  begin_ending();
  Log::close_all();
}
XPOOL_API int32_t xpool_let_late_threads_wait() { return let_late_threads_wait(); }

struct TakenBatch {
  const char *records;
  uint64_t nbytes;
  uint64_t record_count;
  char *const *payloads;
  const uint64_t *sizes;
  uint64_t payload_count;
};

// A device's oldest batch, or null. It belongs to the caller until released.
XPOOL_API void *xpool_take(int32_t device, TakenBatch *taken) {
  static_assert(sizeof(size_t) == sizeof(uint64_t));
  Batch *batch = Log::of(device).take();
  if (batch)
    *taken = {batch->records.data(),
              batch->records.size(),
              batch->record_count,
              batch->payloads.data(),
              reinterpret_cast<const uint64_t *>(batch->sizes.data()),
              batch->payloads.size()};
  return batch;
}
XPOOL_API void xpool_release(void *batch) {
  // At the end Python drops what the transport's own thread may still be sending.
  if (!is_ending())
    delete static_cast<Batch *>(batch);
}
XPOOL_API uint64_t xpool_queued_bytes(int32_t device) { return Log::of(device).queued_bytes(); }

XPOOL_API uint64_t xpool_position(int32_t device) { return Log::of(device).position(); }

// One record made by Python (a fence, statistics). Returns its request id.
XPOOL_API uint64_t xpool_request(int32_t device, uint8_t kind) {
  const uint64_t request = Log::of(device).next_request();
  Bytes record;
  record.uint8(kind);
  record.uvarint(request);
  Log::of(device).append(record);
  return request;
}

XPOOL_API void xpool_memory(int32_t device, MemoryCounters *counters) { *counters = memory_counters(device); }
XPOOL_API void xpool_reset_peak_memory(int32_t device) { reset_peak_memory(device); }
XPOOL_API void xpool_plans(PlanCounters *counters) { *counters = plan_counters(); }
XPOOL_API void xpool_expect_default_generator() { expect_default_generator(); }
XPOOL_API int32_t xpool_current_device() { return current_device(); }
// False for a device that does not exist.
XPOOL_API int32_t xpool_set_current_device(int32_t index) {
  if (index < 0 || index >= device_count())
    return 0;
  set_current_device(index);
  return 1;
}
XPOOL_API int64_t xpool_current_stream(int32_t device) { return current_stream(device); }
XPOOL_API void xpool_set_current_stream(int32_t device, int64_t id) { set_current_stream(device, id); }

// Null, or what is wrong.
static const char *error_of(void (*run)(void *), void *argument) {
  thread_local std::string error;
  try {
    run(argument);
    return nullptr;
  } catch (const c10::Error &problem) {
    error = problem.what_without_backtrace();
  } catch (const std::exception &problem) {
    error = problem.what();
  }
  return error.c_str();
}
// DLPack: remembers a storage whose address leaves; seats a tensor made from such an address.
XPOOL_API const char *xpool_export_storage(void *storage) {
  return error_of([](void *it) { export_storage(static_cast<c10::StorageImpl *>(it)); }, storage);
}
XPOOL_API const char *xpool_import_tensor(void *tensor) {
  return error_of([](void *it) { import_tensor(static_cast<c10::TensorImpl *>(it)); }, tensor);
}
XPOOL_API const char *xpool_resize_storage(void *storage, uint64_t nbytes) {
  std::pair<void *, uint64_t> both(storage, nbytes);
  return error_of(
      [](void *it) {
        const auto &[storage, nbytes] = *static_cast<std::pair<void *, uint64_t> *>(it);
        auto *impl = static_cast<c10::StorageImpl *>(storage);
        resize_storage(c10::Storage(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(impl)), nbytes);
      },
      &both);
}
