// The pump's part of the C interface that Python loads with ctypes: see api.cpp. Nothing here throws.
#include "pump_api.h"

#include <array>

#include "interpreter.h"

namespace xpool {

namespace {

// A pump, and what its C interface lends to Python until the next call.
struct Lent {
  Lent(Log &log, int wake_fd, const ZmqApi &api, const ZmqPath::Sockets &sockets, uint8_t version, uint64_t window)
      : pump(log, wake_fd, api, sockets, version, window) {}
  Pump pump;
  std::vector<const char *> frames;
  std::vector<uint64_t> sizes;
};

std::array<std::atomic<Lent *>, kMaxDevices> pumps{};

}  // namespace

Pump *pump_of(int device) {
  Lent *lent = pumps[device].load(std::memory_order_acquire);
  return lent ? &lent->pump : nullptr;
}

}  // namespace xpool

using namespace xpool;

#define XPOOL_API extern "C" __attribute__((visibility("default")))

// As `_Setup` in pump.py.
struct PumpSetup {
  ZmqApi api;
  ZmqPath::Sockets sockets;
  int32_t wake_fd;
  uint32_t version;
  uint64_t window;
  int (*signal_behind)(void *exception);
};

// As `_Event` in pump.py.
struct LentEvent {
  int32_t kind;
  uint64_t number;
  int64_t at_ns;
  const char *text;
  const char *const *frames;
  const uint64_t *sizes;
  uint64_t frame_count;
};

// A device's session is open and its socket is the pump's from now on. Null if the device has a pump already.
XPOOL_API void *xpool_pump_start(int32_t device, const PumpSetup *setup) {
  if (device < 0 || device >= kMaxDevices || pumps[device])
    return nullptr;
  set_signal_behind(setup->signal_behind);
  auto *lent = new Lent(Log::of(device), setup->wake_fd, setup->api, setup->sockets, setup->version, setup->window);
  lent->pump.start();
  pumps[device].store(lent, std::memory_order_release);
  return lent;
}

// Waits for the next event; its memory lives until the next call.
XPOOL_API void xpool_pump_next(Lent *lent, LentEvent *event) {
  const Event &next = lent->pump.next();
  lent->frames.clear();
  lent->sizes.clear();
  if (next.frames)
    for (const Message &frame : *next.frames) {
      lent->frames.push_back(frame.data());
      lent->sizes.push_back(frame.size());
    }
  *event = {next.kind,           next.number,        next.at_ns,         next.text.c_str(),
            lent->frames.data(), lent->sizes.data(), lent->frames.size()};
}

// Waits for a request's answer, for callers in Python. 0: `value` and `payloads` are lent until `reply` is released;
// 1: Python knows the answer; 2: look after signals and wait again.
struct LentReply {
  Messages *reply;
  const char *value;
  uint64_t value_nbytes, payload_count;
};
XPOOL_API int32_t xpool_pump_wait(Lent *lent, uint64_t request, LentReply *answer) {
  Reply reply;
  const Outcome outcome = lent->pump.wait(request, reply);
  if (outcome == Outcome::kAnswered) {
    const Message &first = reply->front();
    answer->value = first.data() + kHeaderBytes;
    answer->value_nbytes = first.size() - kHeaderBytes;
    answer->payload_count = reply->size() - 1;
    answer->reply = reply.release();
  }
  return static_cast<int32_t>(outcome);
}
XPOOL_API uint64_t xpool_pump_payload(const Messages *reply, uint64_t index, const char **data) {
  const Message &payload = (*reply)[1 + index];
  *data = payload.data();
  return payload.size();
}
XPOOL_API void xpool_pump_release(Messages *reply) { delete reply; }

XPOOL_API int32_t xpool_pump_wait_for_room(Lent *lent) { return static_cast<int32_t>(lent->pump.wait_for_room()); }
XPOOL_API int64_t xpool_pump_mark(Lent *lent, uint64_t request) { return lent->pump.mark(request); }
XPOOL_API void xpool_pump_ask_python(Lent *lent, uint64_t request) { lent->pump.ask_python(request); }
XPOOL_API void xpool_pump_forget(Lent *lent, uint64_t request) { lent->pump.forget(request); }
XPOOL_API void xpool_pump_leave(Lent *lent, const char *bye, uint64_t nbytes) { lent->pump.leave({bye, nbytes}); }
XPOOL_API void xpool_pump_hold(Lent *lent, int32_t is_held) { lent->pump.hold(is_held); }
XPOOL_API void xpool_pump_end(Lent *lent, const char *bye, uint64_t nbytes) { lent->pump.end({bye, nbytes}); }
XPOOL_API void xpool_pump_join(Lent *lent) { lent->pump.join(); }
XPOOL_API uint64_t xpool_pump_sent_bytes(Lent *lent) { return lent->pump.sent_bytes(); }
// For a signal handler: whether the wait ends instead of the handler raising.
XPOOL_API int32_t xpool_defer_signal(int32_t signal) { return defer_signal(signal); }
