#include "zmq_path.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>

namespace xpool {

// Of zmq.h, which is not there where only pyzmq's wheel is.
constexpr int kDontWait = 1, kSendMore = 2;
constexpr uint16_t kEventDisconnected = 0x0200;

bool ZmqPath::send_frame(Message &message, bool is_last) {
  int sent;
  do
    sent = api_.msg_send(message.raw_, sockets_.socket, is_last ? kDontWait : kDontWait | kSendMore);
  while (sent < 0 && errno == EINTR);
  return sent >= 0;
}

bool ZmqPath::send(const std::string &first, const std::string &more,
                   const std::vector<std::pair<char *, size_t>> &payloads) {
  Message head(api_);
  if (api_.msg_init_size(head.raw_, first.size() + more.size()))
    throw std::bad_alloc();
  memcpy(head.data(), first.data(), first.size());
  memcpy(head.data() + first.size(), more.data(), more.size());
  // Every payload is given away before any can fail, so that each has one owner.
  Messages frames;
  frames.reserve(payloads.size());
  for (const auto &[data, nbytes] : payloads) {
    frames.emplace_back(api_);
    if (api_.msg_init_data(frames.back().raw_, data, nbytes, [](void *memory, void *) { free(memory); }, nullptr))
      throw std::bad_alloc();
  }
  if (!send_frame(head, frames.empty()))
    return false;
  for (size_t i = 0; i < frames.size(); i++)
    if (!send_frame(frames[i], i + 1 == frames.size()))
      return false;
  return true;
}

ZmqPath::Arrival ZmqPath::receive(Messages &frames) {
  size_t count = 0, nbytes = 0;
  bool is_more = true;
  while (is_more) {
    Message frame(api_);
    while (api_.msg_recv(frame.raw_, sockets_.socket, kDontWait) < 0) {
      if (errno == EAGAIN)
        return kNothing;
      if (errno != EINTR)
        return kBroken;
    }
    is_more = api_.msg_more(frame.raw_);
    nbytes += frame.size();
    // Frames beyond the limits are dropped at once: they can't pile up here.
    if (++count <= kMaxFrames && nbytes <= sockets_.max_message_nbytes)
      frames.push_back(std::move(frame));
  }
  if (count > kMaxFrames)
    return kTooManyFrames;
  return nbytes > sockets_.max_message_nbytes ? kTooLarge : kMessage;
}

bool ZmqPath::is_disconnected() {
  bool is_gone = false;
  while (true) {
    Message event(api_);  // a frame of event (16 bits) and value, then one with the address
    if (api_.msg_recv(event.raw_, sockets_.monitor, kDontWait) < 0) {
      if (errno == EINTR)
        continue;
      return is_gone;
    }
    uint16_t number = 0;
    if (api_.msg_more(event.raw_) && event.size() >= sizeof number) {
      memcpy(&number, event.data(), sizeof number);
      is_gone = is_gone || number == kEventDisconnected;
    }
  }
}

ZmqPath::Woken ZmqPath::wait(int other, int64_t timeout_ns) const {
  pollfd fds[] = {{sockets_.socket_fd, POLLIN, 0}, {sockets_.monitor_fd, POLLIN, 0}, {other, POLLIN, 0}};
  const timespec timeout{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
  if (::ppoll(fds, 3, timeout_ns < 0 ? nullptr : &timeout, nullptr) <= 0)
    return kNobody;
  return fds[2].revents ? kOther : kPath;
}

}  // namespace xpool
