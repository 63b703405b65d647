// A connected ZeroMQ DEALER that Python's transport has opened, used from native code.
//
// The socket and its monitor are pyzmq's (xpool/native/pump.py).
#pragma once
#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "connection.h"
#include "zmq_message.h"

namespace xpool {

using xpool_protocol::Arrival;
using xpool_protocol::Message;
using xpool_protocol::Messages;
using xpool_protocol::ZmqApi;

class ZmqPath {
 public:
  struct Sockets {
    void *socket, *monitor;
    int32_t socket_fd, monitor_fd;
    uint64_t max_message_nbytes;
  };

  ZmqPath(const ZmqApi &api, const Sockets &sockets) : api_(kept(api)), sockets_(sockets) {}

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
  const ZmqApi &api_;
  const Sockets sockets_;
};

}  // namespace xpool
