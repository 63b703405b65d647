// Messages of ZeroMQ sockets that Python's transport has opened, read and written by native code.
//
// The sockets are pyzmq's; the functions are those of the libzmq that pyzmq has loaded
// (xpool_protocol/transport/zmq_native.py). libzmq's C interface is stable across its version 4. A socket may be used by
// one thread at a time; who that is is the owner's business.
#pragma once
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

namespace xpool_protocol {

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

// A copy that is never freed: messages, which need it, may outlive the owner of their socket.
inline const ZmqApi &kept(const ZmqApi &api) { return *new ZmqApi(api); }

// One frame in libzmq's memory, or in memory that was given to it.
class Message {
 public:
  // The functions have to be `kept`.
  explicit Message(const ZmqApi &api) : api_(&api) { api_->msg_init(raw_); }
  Message(Message &&other) noexcept : Message(*other.api_) { api_->msg_move(raw_, other.raw_); }
  Message &operator=(Message &&) = delete;
  ~Message() { api_->msg_close(raw_); }

  char *data() const { return static_cast<char *>(api_->msg_data(raw_)); }
  size_t size() const { return api_->msg_size(raw_); }
  std::string_view bytes() const { return {data(), size()}; }
  bool has_more() const { return api_->msg_more(raw_); }

  // An empty one gets room for so many bytes.
  void make_room(size_t nbytes) {
    if (api_->msg_init_size(raw_, nbytes))
      throw std::bad_alloc();
  }
  // An empty one takes malloc'd memory over, which is freed when it has left.
  void take(char *memory, size_t nbytes) {
    if (api_->msg_init_data(raw_, memory, nbytes, [](void *data, void *) { free(data); }, nullptr))
      throw std::bad_alloc();
  }
  // Queues it; false when the peer is gone. Does not wait.
  bool send(void *socket, bool is_last) {
    int sent;
    do
      sent = api_->msg_send(raw_, socket, is_last ? kDontWait : kDontWait | kSendMore);
    while (sent < 0 && errno == EINTR);
    return sent >= 0;
  }
  // Becomes the next frame that has arrived; false, with `errno`, where there is none. Does not wait.
  bool receive(void *socket) {
    int received;
    do
      received = api_->msg_recv(raw_, socket, kDontWait);
    while (received < 0 && errno == EINTR);
    return received >= 0;
  }

 private:
  // Of zmq.h, which is not there where only pyzmq's wheel is.
  static constexpr int kDontWait = 1, kSendMore = 2;

  const ZmqApi *api_;
  alignas(8) mutable unsigned char raw_[64];  // zmq_msg_t
};

using Messages = std::vector<Message>;

// What a message may be. Frames of its envelope, as the peer's name before a ROUTER's messages, count for none of it.
struct MessageLimits {
  size_t envelope, max_frames;
  uint64_t max_nbytes;
};

enum class Arrival { kNothing, kMessage, kTooManyFrames, kTooLarge, kBroken };

// The next message that has arrived, if any.
inline Arrival receive_message(const ZmqApi &api, void *socket, const MessageLimits &limits, Messages &frames) {
  frames.clear();
  const size_t max_count = limits.envelope + limits.max_frames;
  size_t count = 0;
  uint64_t nbytes = 0;
  bool is_more = true;
  while (is_more) {
    Message frame(api);
    if (!frame.receive(socket))
      return errno == EAGAIN ? Arrival::kNothing : Arrival::kBroken;
    is_more = frame.has_more();
    if (count >= limits.envelope)
      nbytes += frame.size();
    // Frames beyond the limits are dropped at once: they can't pile up here.
    if (++count <= max_count && nbytes <= limits.max_nbytes)
      frames.push_back(std::move(frame));
  }
  if (count > max_count)
    return Arrival::kTooManyFrames;
  return nbytes > limits.max_nbytes ? Arrival::kTooLarge : Arrival::kMessage;
}

}  // namespace xpool_protocol
