// Questions to the server, and the end of the session.
#include "capturing.h"
#include "ending.h"

#include "lane.h"

#include <c10/util/Exception.h>

#include "interpreter.h"
#include "waiting.h"

namespace xpool {

Callbacks callbacks;

static std::atomic<bool> forked{false};

bool is_forked() { return forked; }
void note_fork() { forked = true; }

static std::array<std::atomic<const std::string *>, kMaxDevices> over{};

void end_session(int device, const char *text) {
  const std::string *expected = nullptr, *reason = new std::string(text);  // kept: other threads may be reading it
  if (!over[device].compare_exchange_strong(expected, reason))
    delete reason;
}

static void check_fork() {
  TORCH_CHECK(!forked, "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use "
                       "the 'spawn' start method");
}

static void check_open() {
  TORCH_CHECK(!Log::closed(), "xpool: the session is closed; no remote operation can run any more");
}

void check_process() {
  // After the interpreter's exit handlers a daemon thread must not come back to report errors: it waits for the end.
  if (!forked)
    wait_if_ending();
  check_fork();
  check_open();
}

void check_usable(int device) {
  if (!forked)
    wait_if_ending();
  check_fork();
  if (const std::string *reason = over[device])
    C10_THROW_ERROR(Error, *reason);
  check_open();
}

namespace {

uint64_t payload_bytes(const Answer &answer) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < answer.payload_count; i++)
    sum += answer.payload_nbytes[i];
  return sum;
}

}  // namespace

void leave_room(int device) {
  check_usable(device);
  if (Log::of(device).queued_bytes() <= kTransferBytes)
    return;
  Watch watch("room");
  if (Pump *pump = pump_of(device))
    wait_for_room(*pump, Log::of(device));
  else if (callbacks.wait_for_room)
    callbacks.wait_for_room(device);
}

[[noreturn]] static void raise(const Answer &answer) {
  const std::string kind = answer.exception ? answer.exception : "", text = answer.text ? answer.text : "";
  if (kind == "IndexError")
    C10_THROW_ERROR(IndexError, text);
  if (kind == "ValueError")
    C10_THROW_ERROR(ValueError, text);
  if (kind == "TypeError")
    C10_THROW_ERROR(TypeError, text);
  if (kind == "NotImplementedError")
    C10_THROW_ERROR(NotImplementedError, text);
  if (kind == "OutOfMemoryError")
    C10_THROW_ERROR(OutOfMemoryError, text);
  if (kind == "LinAlgError")
    C10_THROW_ERROR(LinAlgError, text);
  C10_THROW_ERROR(Error, text);
}

Answer await(int device, uint64_t request, const char *what) {
  check_usable(device);
  TORCH_CHECK(callbacks.request, "xpool: no session is open; run the program with `xpool run`, or call xpool.init()");
  Answer answer;
  {
    Watch watch(what);
    Pump *pump = pump_of(device);
    if (!pump || !wait_natively(*pump, request, answer))
      callbacks.request(device, request, &answer);
    watch.nbytes = payload_bytes(answer);
  }
  // A signal handler raised while this call waited, where nothing can be raised. The signal is delivered again, to be
  // handled as soon as the error below has ended this call.
  deliver_again(answer.signal);
  if (answer.status != 0)
    raise(answer);
  return answer;
}

void read_storage(const c10::Storage &from, uint64_t offset, char *to, uint64_t nbytes) {
  const int device = from.device().index();
  refuse_capture(device);
  const uint64_t storage = storage_id(from);
  if (nbytes >= kLaneBytes && Lane::of(device).is_open() && Lane::of(device).download(storage, offset, to, nbytes))
    return;
  Log &log = Log::of(device);
  std::vector<uint64_t> requests;
  std::vector<uint64_t> lengths;
  for (uint64_t at = 0; at < nbytes; at += kTransferBytes) {
    const uint64_t length = std::min<uint64_t>(kTransferBytes, nbytes - at);
    requests.push_back(log.append_read(storage, offset + at, length));
    lengths.push_back(length);
  }
  for (size_t i = 0; i < requests.size(); i++) {
    const Answer answer = await(device, requests[i], "read");
    uint64_t got = 0;
    for (uint64_t k = 0; k < answer.payload_count; k++) {
      TORCH_CHECK(answer.payload_nbytes[k] <= lengths[i] - got, "xpool: the server sent more bytes than were asked for");
      memcpy(to + got, answer.payloads[k], answer.payload_nbytes[k]);
      got += answer.payload_nbytes[k];
    }
    TORCH_CHECK(got == lengths[i], "xpool: the server sent ", got, " bytes where ", lengths[i], " were asked for");
    to += got;
    drop_reply();  // up to a transfer's bytes
  }
}

}  // namespace xpool
