// A worker's ROUTER socket that Python's transport has opened, used from native code.
//
// The socket stays pyzmq's: Python and this use it in turn, in one thread. The functions are those of the libzmq that
// pyzmq has loaded (xpool_protocol/transport/zmq_native.py).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace xpool_server {

// In the order of `FUNCTIONS` in zmq_native.py.
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

// One frame in libzmq's memory.
class Message {
 public:
  explicit Message(const ZmqApi &api) : api_(&api) { api_->msg_init(raw_); }
  Message(Message &&other) noexcept : Message(*other.api_) { api_->msg_move(raw_, other.raw_); }
  Message &operator=(Message &&) = delete;
  ~Message() { api_->msg_close(raw_); }

  std::string_view bytes() const { return {static_cast<char *>(api_->msg_data(raw_)), api_->msg_size(raw_)}; }

 private:
  friend class ZmqRouter;
  const ZmqApi *api_;
  alignas(8) mutable unsigned char raw_[64];  // zmq_msg_t
};

// The peer's name, then its frames.
using Messages = std::vector<Message>;

class ZmqRouter {
 public:
  enum Arrival { kNothing, kMessage, kRefused, kBroken };

  ZmqRouter(const ZmqApi &api, void *socket, int fd, uint64_t max_message_nbytes)
      : api_(api), socket_(socket), fd_(fd), max_message_nbytes_(max_message_nbytes) {}

  // The next message that has arrived, if any. kRefused: it was over a limit, or of a peer without a name of ours.
  // After kNothing, and until something is sent, the descriptor tells of the next one.
  Arrival receive(Messages &frames);
  // Queues one message of copies; false when the peer is gone.
  bool send(std::string_view peer, std::string_view first, std::string_view payload = {});
  int fd() const { return fd_; }

 private:
  bool send_frame(std::string_view bytes, bool is_last);

  const ZmqApi api_;
  void *const socket_;
  const int fd_;
  const uint64_t max_message_nbytes_;
};

}  // namespace xpool_server
