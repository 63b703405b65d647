// The C interface that Python loads with ctypes. Nothing here throws: an exception becomes a false or a null.
#include <cstring>

#include "dispatch.h"
#include "remote.h"

namespace xpool {
void expect_default_generator();
void end_session(const char *text);
int current_device();
int64_t current_stream();
void set_current_stream(int64_t id);
}  // namespace xpool

using namespace xpool;

#define XPOOL_API extern "C" __attribute__((visibility("default")))

// Bumped with every change of this interface; Python refuses another one.
XPOOL_API int32_t xpool_abi() { return 2; }

// After `import torch`: takes the CUDA key.
XPOOL_API const char *xpool_register() {
  static std::string error;
  try {
    register_kernels();
    return nullptr;
  } catch (const std::exception &problem) {
    error = problem.what();
    return error.c_str();
  }
}

XPOOL_API void xpool_connect(int32_t wake_fd, void (*request)(uint64_t, Answer *), void (*wait_for_room)(),
                             void (*trace)(uint64_t), uint64_t quota, int32_t server_is_cpu) {
  callbacks = {request, wait_for_room, trace};
  set_memory_quota(quota);
  set_server_is_cpu(server_is_cpu != 0);
  Log::instance().set_wake_fd(wake_fd);
}

// The session is over: from now on every operation fails with this text.
XPOOL_API void xpool_end(const char *text) { end_session(text); }
XPOOL_API void xpool_close() { Log::instance().close(); }

struct TakenBatch {
  const char *records;
  uint64_t nbytes;
  uint64_t record_count;
  char *const *payloads;
  const uint64_t *sizes;
  uint64_t payload_count;
};

// The oldest batch, or null. It belongs to the caller until released.
XPOOL_API void *xpool_take(TakenBatch *taken) {
  static_assert(sizeof(size_t) == sizeof(uint64_t));
  Batch *batch = Log::instance().take();
  if (batch)
    *taken = {batch->records.data(),
              batch->records.size(),
              batch->record_count,
              batch->payloads.data(),
              reinterpret_cast<const uint64_t *>(batch->sizes.data()),
              batch->payloads.size()};
  return batch;
}
XPOOL_API void xpool_release(void *batch) { delete static_cast<Batch *>(batch); }
XPOOL_API uint64_t xpool_queued_bytes() { return Log::instance().queued_bytes(); }

// One record made by Python (a fence, statistics). Returns its request id.
XPOOL_API uint64_t xpool_request(uint8_t kind) {
  const uint64_t request = Log::instance().next_request();
  Bytes record;
  record.uint8(kind);
  record.uvarint(request);
  Log::instance().append(record);
  return request;
}

XPOOL_API void xpool_memory(MemoryCounters *counters) { *counters = memory_counters(); }
XPOOL_API void xpool_reset_peak_memory() { reset_peak_memory(); }
XPOOL_API void xpool_plans(PlanCounters *counters) { *counters = plan_counters(); }
XPOOL_API void xpool_expect_default_generator() { expect_default_generator(); }
XPOOL_API int32_t xpool_current_device() { return current_device(); }
XPOOL_API int64_t xpool_current_stream() { return current_stream(); }
XPOOL_API void xpool_set_current_stream(int64_t id) { set_current_stream(id); }
