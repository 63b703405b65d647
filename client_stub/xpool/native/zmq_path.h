// A connected ZeroMQ DEALER that Python's transport has opened, used from native code.
//
// The socket and its monitor are pyzmq's; the functions are those of the libzmq that pyzmq has loaded, found by Python
// (xpool/native/pump.py). libzmq's C interface is stable across its version 4. A socket may be used by one thread at a
// time; who that is is the owner's business.
#pragma once
#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "connection.h"

namespace xpool {

// In the order of `FUNCTIONS` in xpool_protocol/transport/zmq_native.py.
struct ZmqApi {
  int (*msg_init)(void *);
  int (*msg_init_size)(void *, size_t);
  int (*msg_init_data)(void *, void *, size_t, void (*)(void *, void *), void *);
  int (*msg_send)(void *, void *, int);
  int (*msg_recv)(void *, void *, int);
  int (*msg_close)(void *);
  int (*msg_move)(void *, void *);
  void *(*msg_data)(void *);
  size_t (*msg_size)(const void *);
  int (*msg_more)(const void *);
};

// One frame in libzmq's memory, or in memory that was given to it.
class Message {
 public:
  explicit Message(const ZmqApi &api) : api_(&api) { api_->msg_init(raw_); }
  Message(Message &&other) noexcept : Message(*other.api_) { api_->msg_move(raw_, other.raw_); }
  Message &operator=(Message &&) = delete;
  ~Message() { api_->msg_close(raw_); }

  char *data() const { return static_cast<char *>(api_->msg_data(raw_)); }
  size_t size() const { return api_->msg_size(raw_); }
  Frame frame() const { return {data(), size()}; }

 private:
  friend class ZmqPath;
  const ZmqApi *api_;
  alignas(8) mutable unsigned char raw_[64];  // zmq_msg_t
};

using Messages = std::vector<Message>;

class ZmqPath {
 public:
  struct Sockets {
    void *socket, *monitor;
    int32_t socket_fd, monitor_fd;
    uint64_t max_message_nbytes;
  };
  enum Arrival { kNothing, kMessage, kTooManyFrames, kTooLarge, kBroken };

  ZmqPath(const ZmqApi &api, const Sockets &sockets) : api_(api), sockets_(sockets) {}

  // Queues one message: `first` in two parts that become one frame, then payload frames, malloc'd, which are the path's
  // from now on and are freed when they have left. False when the peer is gone.
  bool send(const std::string &first, const std::string &more, const std::vector<std::pair<char *, size_t>> &payloads);
  // The next message that has arrived, if any. After kNothing the descriptor of `poll` tells of the next one.
  Arrival receive(Messages &frames);
  // The monitor has seen the connection end.
  bool is_disconnected();
  enum Woken { kNobody, kPath, kOther };
  // Waits for the socket, its monitor or `other`; a negative time is for ever. kNobody: a signal, or the time is over.
  Woken wait(int other, int64_t timeout_ns) const;

 private:
  bool send_frame(Message &message, bool is_last);

  const ZmqApi api_;
  const Sockets sockets_;
};

}  // namespace xpool
