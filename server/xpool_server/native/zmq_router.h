// A worker's ROUTER socket that Python's transport has opened, used from native code.
//
// The socket stays pyzmq's: Python and this use it in turn, in one thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "zmq_message.h"

namespace xpool_server {

using xpool_protocol::Message;
using xpool_protocol::Messages;  // the peer's name, then its frames
using xpool_protocol::ZmqApi;

class ZmqRouter {
 public:
  enum Arrival { kNothing, kMessage, kRefused, kBroken };

  ZmqRouter(const ZmqApi &api, void *socket, int fd, uint64_t max_message_nbytes)
      : api_(kept(api)), socket_(socket), fd_(fd), max_message_nbytes_(max_message_nbytes) {}

  // The next message that has arrived, if any. kRefused: it was over a limit, or of a peer without a name of ours.
  // After kNothing, and until something is sent, the descriptor tells of the next one.
  Arrival receive(Messages &frames);
  // Queues one message of copies; false when the peer is gone.
  bool send(std::string_view peer, std::string_view first, std::string_view payload = {});
  int fd() const { return fd_; }

 private:
  bool send_frame(std::string_view bytes, bool is_last);

  const ZmqApi &api_;
  void *const socket_;
  const int fd_;
  const uint64_t max_message_nbytes_;
};

}  // namespace xpool_server
