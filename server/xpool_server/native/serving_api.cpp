// What native_serving.py calls, without Python's lock. Nothing here throws.
#include "executor_api.h"
#include "serving.h"

using xpool_server::Executor;
using xpool_server::Messages;
using xpool_server::Serving;
using xpool_server::ZmqApi;
using xpool_server::ZmqRouter;

#define API extern "C" __attribute__((visibility("default")))

// As `_Setup` in serving.py.
struct XsServingSetup {
  ZmqApi api;
  void *socket;
  int32_t socket_fd;
  uint32_t version;
  uint64_t max_message_nbytes;
  uint64_t window;
  const char *owner;
  uint64_t owner_nbytes;
  const int32_t *watched;
  uint64_t watched_count;
  void (*note_work)(int32_t begins);
  int32_t (*is_settled)();
};

// As `_Served` in serving.py.
struct XsServed {
  uint64_t sequence, operation;  // both ways: what is executed
  uint64_t received_bytes, sent_bytes, busy_ns, refused_messages;
  int32_t outcome;                // of the record that it stopped at, if it did
  Messages *message;              // for Python, until `xs_release`; null if there is none
  uint64_t frame_count;
};

API Serving *xs_serving_new(Executor *executor, const XsServingSetup *setup) {
  return new Serving(*executor, {ZmqRouter(setup->api, setup->socket, setup->socket_fd, setup->max_message_nbytes),
                                 std::string(setup->owner, setup->owner_nbytes),
                                 std::vector<int>(setup->watched, setup->watched + setup->watched_count),
                                 static_cast<uint8_t>(setup->version), setup->window, setup->note_work, setup->is_settled});
}

API void xs_serving_delete(Serving *serving) { delete serving; }

API int32_t xs_serve(Serving *serving, int64_t timeout_ns, XsServed *served, XsStop *stop) {
  using xpool_server::Stop;
  serving->connection().stand_at(served->sequence, served->operation);
  Stop why;
  try {
    why = serving->serve(timeout_ns);
  } catch (const std::exception &) {  // memory is out
    why = Stop::kBroken;
  }
  const bool has_message = why == Stop::kMessage || why == Stop::kRecord;
  const uint64_t frame_count = has_message ? serving->message.size() : 0;
  *served = {serving->connection().sequence(),
             serving->connection().operation(),
             serving->received_bytes,
             serving->sent_bytes,
             serving->busy_ns,
             serving->refused_messages,
             static_cast<int32_t>(serving->outcome),
             has_message ? new Messages(std::move(serving->message)) : nullptr,
             frame_count};
  serving->message.clear();
  if (why == Stop::kRecord)
    tell_stop(serving->executor(), serving->batch_record_count, stop);
  return static_cast<int32_t>(why);
}

// A frame of a message; the first is the peer's name.
API const char *xs_frame(const Messages *message, uint64_t index, uint64_t *nbytes) {
  const std::string_view bytes = (*message)[index].bytes();
  *nbytes = bytes.size();
  return bytes.data();
}

API void xs_release(Messages *message) { delete message; }
