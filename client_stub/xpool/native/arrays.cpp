// What the array stub asks of a device's log: it encodes its records itself, in Python.
//
// All of this is called by ctypes, without Python's lock. Nothing throws: an exception becomes its text.
#include <algorithm>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lane.h"
#include "remote.h"

using namespace xpool;

#define XPOOL_API extern "C" __attribute__((visibility("default")))

namespace {

// Null, or what went wrong.
template <typename Run> const char *told(Run run) {
  static thread_local std::string error;
  try {
    run();
    return nullptr;
  } catch (const c10::Error &problem) {
    error = problem.what_without_backtrace();
  } catch (const std::exception &problem) {
    error = problem.what();
  }
  return error.c_str();
}

uint64_t append(Log &log, std::string_view record) {
  Bytes bytes;
  bytes.raw(record.data(), record.size());
  return log.append(bytes);
}

// Operation numbers of the records before and after it.
Around fill(int device, uint64_t storage, const char *data, uint64_t nbytes, std::string_view before,
            std::string_view after) {
  Log &log = Log::of(device);
  Around around;
  if (nbytes >= kLaneBytes && Lane::of(device).is_open()) {
    around.before = append(log, std::exchange(before, {}));
    if (Lane::of(device).upload(storage, 0, data, nbytes)) {
      around.after = append(log, after);
      return around;
    }
  }
  for (uint64_t at = 0; at < nbytes; at += kTransferBytes) {
    leave_room(device);
    const uint64_t part = std::min<uint64_t>(kTransferBytes, nbytes - at);
    const std::string_view last = at + part == nbytes ? after : std::string_view();
    const Around done = log.append_write(storage, at, data + at, part, std::exchange(before, {}), last);
    around = {std::max(around.before, done.before), done.after};
  }
  return around;
}

void read(int device, uint64_t storage, char *to, uint64_t nbytes) {
  if (nbytes >= kLaneBytes && Lane::of(device).is_open() && Lane::of(device).download(storage, 0, to, nbytes))
    return;
  for (uint64_t at = 0; at < nbytes; at += kTransferBytes) {
    const uint64_t length = std::min<uint64_t>(kTransferBytes, nbytes - at);
    const Answer answer = await(device, Log::of(device).append_read(storage, at, length), "read");
    uint64_t got = 0;
    for (uint64_t k = 0; k < answer.payload_count; k++) {
      TORCH_CHECK(answer.payload_nbytes[k] <= length - got, "xpool: the server sent more bytes than were asked for");
      memcpy(to + at + got, answer.payloads[k], answer.payload_nbytes[k]);
      got += answer.payload_nbytes[k];
    }
    TORCH_CHECK(got == length, "xpool: the server sent ", got, " bytes where ", length, " were asked for");
  }
}

}  // namespace

// Before records are appended that make the queue longer: waits while it is too long.
XPOOL_API const char *xpool_array_leave_room(int32_t device) {
  return told([&] { leave_room(device); });
}

XPOOL_API uint64_t xpool_array_request(int32_t device) { return Log::of(device).next_request(); }
XPOOL_API uint64_t xpool_array_storage(int32_t device) { return Log::of(device).next_storage(); }

// A storage's bytes, and the records around them: the one that makes the storage, and one that uses it.
struct ArrayWrite {
  uint64_t storage;
  const char *data;
  uint64_t nbytes;
  const char *before, *after;
  uint64_t before_nbytes, after_nbytes;
  Around numbers;  // of these two, once they are appended
};

// Fills a storage, as fast as there is a way to.
XPOOL_API const char *xpool_array_write(int32_t device, ArrayWrite *write) {
  return told([&] {
    write->numbers = fill(device, write->storage, write->data, write->nbytes, {write->before, write->before_nbytes},
                          {write->after, write->after_nbytes});
  });
}
XPOOL_API const char *xpool_array_read(int32_t device, uint64_t storage, char *to, uint64_t nbytes) {
  return told([&] { read(device, storage, to, nbytes); });
}
